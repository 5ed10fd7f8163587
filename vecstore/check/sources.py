"""Where a lost pack can come from, and what to tell its owner if it cannot come from anywhere.

The quarantine is looked through before, by registry/check/repair. To add a source (a remote, say): a function
here that makes the pack in `scratch` and says how, or returns None, and its name in SOURCES.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pv.registry.base_places import BasePlaces
from pv.registry.check.repair import Mended
from pv.registry.check.report import Finding, Report
from pv.registry.errors import BaseMismatch, MissingBase, PvError
from pv.registry.manifest import BaseManifest, Spec, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.registry.provenance import Captured, Derived, Extracted, Imported, Merged, Trained
from pv.vecstore.check.decode import manifest_of
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.vectors.base import Fetch, open_base
from pv.vecstore.vectors.derive import EncodingSpec, derive
from pv.vecstore.vectors.origin import place_in_words
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.vector import open_vector

__all__ = ["SOURCES", "Lost", "advised", "restore"]


@dataclass(frozen=True, slots=True)
class Lost:
    """A pack to make again in `scratch`: its id, what is known of it, and what it may be made with."""

    id: str
    report: Report
    packs: PackStore
    places: Mapping[str, Mapping[str, str]]
    scratch: PackStore
    fetch: Fetch | None
    threads: int


def from_origin(lost: Lost) -> str | None:
    """A pinned base, from the folder or the Hub that it came from."""
    base = lost.report.bases.get(lost.id)
    if base is None:
        return None
    place = lost.places.get(lost.id, base.origin)
    with _origin(base, place, lost.fetch) as checkpoint:
        pin(checkpoint, base, lost.scratch, threads=lost.threads)
    return f"copied again from {place_in_words(place)}"


def from_derivation(lost: Lost) -> str | None:
    """A derived vector, from the vector that it was derived from."""
    origin = lost.report.provenance.get(lost.id)
    if not isinstance(origin, Derived):
        return None
    source = manifest_of(lost.packs, origin.derived_from)
    if not isinstance(source, VectorManifest) or source.base not in lost.report.bases:
        return None
    with ExitStack() as stack:
        moved = lost.places.get(source.base)
        base = stack.enter_context(
            open_base(lost.report.bases[source.base], lost.packs, fetch=lost.fetch, moved=moved)
        )
        vector = stack.enter_context(open_vector(origin.derived_from, base, lost.packs))
        spec = EncodingSpec.parse(origin.encoding)
        derive(vector, spec, lost.scratch, threads=lost.threads)
        if spec.encoding == "lowrank" and not lost.scratch.has(lost.id):
            derive(vector, spec.as_before(), lost.scratch, threads=lost.threads)
    return f"derived again from vector {origin.derived_from[:12]}"


SOURCES: tuple[Callable[[Lost], str | None], ...] = (from_origin, from_derivation)


def restore(root: Path, report: Report, finding: Finding, fetch: Fetch | None, threads: int) -> Mended:
    """Put a lost pack back, if it can be made again."""
    pack_id = finding.where.rpartition("/")[2]
    packs = PackStore(root)
    try:
        with packs.scratch("repair") as folder:
            lost = Lost(
                pack_id, report, packs, BasePlaces(root).read_if_sound(), PackStore(folder), fetch, threads
            )
            how = next((said for source in SOURCES if (said := source(lost)) is not None), None)
            if how is None:
                return Mended(finding.where, _advice(report, pack_id), done=False)
            if not lost.scratch.has(pack_id):
                advice = _advice(report, pack_id)
                return Mended(finding.where, f"{how}, and became another: {advice}", done=False)
            packfile.inspect(lost.scratch.path(pack_id), pack_id)
            packs.put(lost.scratch.path(pack_id), pack_id)
    except PvError as error:
        return Mended(
            finding.where,
            f"cannot be made again: {error}{f'; {error.hint}' if error.hint else ''}",
            done=False,
        )
    return Mended(finding.where, how)


@contextmanager
def _origin(base: BaseManifest, place: Mapping[str, str], fetch: Fetch | None) -> Iterator[Checkpoint]:
    """The checkpoint of a base, at its place. Raises MissingBase, BaseMismatch."""
    path = place.get("path")
    if path is None and place.get("kind") == "hub" and fetch is not None:
        path = str(fetch(place["repo"], place["revision"]))
    if path is None or not Path(path).exists():
        raise MissingBase(
            f"{place_in_words(place)} is not there", hint="`pv base move DIR` says where the base is now"
        )
    with Checkpoint(Path(path)) as checkpoint:
        if dict(checkpoint.specs) != {n: Spec(r.dtype, r.shape) for n, r in base.tensors.items()}:
            raise BaseMismatch(
                f"{path} holds another checkpoint now", hint="`pv base move DIR` says where the base is now"
            )
        yield checkpoint


def advised(root: Path, report: Report) -> Report:
    """A pack that no repair can put back has what a person can do beside it, instead."""

    def about(finding: Finding) -> Finding:
        pack_id = finding.where.rpartition("/")[2]
        if finding.kind not in ("pack", "missing") or pack_id not in report.uses or pack_id in report.bases:
            return finding
        kept = (PackStore(root).quarantine / pack_id).is_file()
        if kept or isinstance(report.provenance.get(pack_id), Derived):
            return finding
        return replace(finding, repairable=False, hint=_advice(report, pack_id))

    return replace(report, findings=tuple(map(about, report.findings)))


def _advice(report: Report, pack_id: str) -> str:
    """What a person can do about a pack that cannot be made again from what is here."""
    use = report.uses.get(pack_id)
    name, commit = min(use.behaviours.items()) if use and use.behaviours else ("NAME", "")
    if use is not None and use.kind == "rows":
        return "training rows cannot be made again: `pv train` with the same file puts them back"
    match report.provenance.get(pack_id):
        case Captured(source=source, on=on):
            more = f" --on {on.commit[:12]}" if on else ""
            return (
                f"a captured vector cannot be made again: `pv commit {source} --as {name}{more}` "
                "with the same checkpoint puts it back"
            )
        case Trained() as trained:
            return f"train it again: {_rows(trained, commit, name)}`{_training(trained, name)}`"
        case Derived():
            return f"the vector that it was derived from is gone too: pv compress {name} --to ENCODING"
        case Merged(said=said):
            words = f"pv drop {name}, then pv add {name}='{said}'"
            return f"a vector made of several is another one when it is made again: {words}"
        case Extracted(pairs=pairs):
            return f"extract it again, from the same {pairs.n} pairs of {pairs.data} in the same way"
        case Imported(source=source):
            return f"import it again, from the same file {source}"
    return "nothing here knows how to make it again: a copy of the registry may have it"


def _rows(trained: Trained, commit: str, name: str) -> str:
    """Where the rows are, if the registry keeps them."""
    if not trained.data.kept or not commit:
        return ""
    return f"`pv rows {commit[:12]}:{name} -o {trained.data.name or 'ROWS.jsonl'}` gives its rows back; then "


def _training(trained: Trained, name: str) -> str:
    """The command that a trained vector's provenance tells of."""
    words = ["pv train", trained.data.name or "ROWS.jsonl", "--as", name]
    keys = ("optimizer", "lr", "epochs", "batch", "rank", "max_steps", "preference", "seed")
    asked = {key: trained.options[key] for key in keys if trained.options.get(key) is not None}
    return " ".join([*words, *(f"--{key.replace('_', '-')} {value}" for key, value in asked.items())])
