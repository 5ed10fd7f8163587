"""scrub: the deep half of fsck. Every part of every pack is decoded against its base, and hashed again.

A checksum says that a file is what was written; this says that what was written is what its id names, and
that it can be decoded still. What is lost is restored, where that can be done without a guess: from the
quarantine, from the folder a base came from, from the vector that another was derived from. Invariant: a
pack is only ever replaced by one whose id is the same and whose every part has been decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pv.registry.check import fsck
from pv.registry.check import repair as files
from pv.registry.check.repair import Mended
from pv.registry.check.report import Finding, Report
from pv.registry.disk import locks
from pv.registry.errors import BaseMismatch, CorruptPack, IntegrityError, MissingBase, PvError
from pv.registry.git import loose
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import MAX_SIDE_BYTES, Checkpoint
from pv.vecstore.checkpoints.fingerprint import row_of
from pv.vecstore.data.pack import load_rows
from pv.vecstore.packs.pack import Pack
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base, open_base, origin_in_words, pin
from pv.vecstore.vectors.derive import Recipe, derive
from pv.vecstore.vectors.vector import open_vector, reference_to

__all__ = ["Fetch", "Scrubbed", "deep", "glance", "repair"]

ROUNDS = 5

Fetch = Callable[[str, str], Path]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Scrubbed:
    """What a repair did, and the registry as it is now."""

    mended: tuple[Mended, ...]
    report: Report


def deep(
    root: Path,
    report: Report,
    *,
    fetch: Fetch | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> Report:
    """The report of `fsck.check`, with what decoding every pack that it found whole has shown."""
    return _Scrub(root, report, fetch, threads, progress).run()


def glance(root: Path, report: Report) -> Report:
    """The report of `fsck.check`, with a look at where bases are that the registry only refers to: names and
    shapes, not bytes. What would have to be fetched is left alone."""
    packs, found = PackStore(root), []
    for base_id, manifest in sorted(report.bases.items()):
        if packs.has(base_id) or "path" not in manifest.origin:
            continue
        where = origin_in_words(manifest)
        try:
            open_base(manifest, packs).close()
        except MissingBase:
            what = f"base {base_id[:12]} is not at hand: builds need it"
            found.append(
                Finding("unchecked", where, what, hint="put it back there, or a link to where it is now")
            )
        except IntegrityError as error:
            found.append(_wrong_base(report, where, str(error)))
    return report.plus(found)


def _wrong_base(report: Report, where: str, what: str) -> Finding:
    names = sorted({name for use in report.uses.values() for name in use.behaviours})
    return Finding("base", where, what, tuple(names), hint="put the right checkpoint back there")


def repair(
    root: Path,
    *,
    deeply: bool = False,
    fetch: Fetch | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> Scrubbed:
    """Check, mend what can be mended, and check again, with the registry to itself.

    In rounds, since one thing may be needed to mend another: a pack holds a copy of its manifest.
    """

    def look() -> Report:
        report = fsck.check(root, alone=True, progress=progress)
        if deeply:
            return deep(root, report, fetch=fetch, threads=threads, progress=progress)
        return glance(root, report)

    mended: list[Mended] = []
    with locks.alone(root):
        for _ in range(ROUNDS):
            report = look()
            tried = files.repair(root, report, _side_files(report))
            known = {one.where for one in tried}
            lost = [finding for finding in report.of("pack", "missing") if finding.where not in known]
            for finding in sorted(lost, key=lambda f: _rank(report, f)):
                tried.append(_restore(root, report, finding, fetch, threads))
            new = [one for one in tried if one.done and one not in mended]
            mended += new
            if not new:
                break
        else:
            report = look()
        failed = [one for one in tried if not one.done]
    return Scrubbed((*mended, *failed), report)


def _side_files(report: Report) -> dict[str, bytes]:
    """Damaged git objects that are files of a base, from where that base came from: {object id: object}."""
    wanted = {finding.where for finding in report.of("object")}
    found = {}
    bases = [base for base in report.bases.values() if wanted and "path" in base.origin]
    for manifest in bases:
        for name in manifest.files:
            with suppress(OSError):
                path = Path(manifest.origin["path"]) / name
                if path.is_file() and path.stat().st_size <= MAX_SIDE_BYTES:
                    object_id, data = loose.blob(path.read_bytes())
                    if object_id in wanted:
                        found[object_id] = data
    return found


class _Scrub:
    def __init__(
        self, root: Path, report: Report, fetch: Fetch | None, threads: int, progress: Progress | None
    ) -> None:
        self.packs = PackStore(root)
        self.report, self.fetch, self.threads = report, fetch, threads
        self.found: list[Finding] = []
        self._bases: dict[str, Base | None] = {}
        self._wrong: dict[str, IntegrityError] = {}
        self._suspect = {finding.where.rpartition("/")[2] for finding in report.of("pack")}
        self._progress = progress
        self._total = sum(path.stat().st_size for path in self.packs.files())
        self._done = 0

    def run(self) -> Report:
        whole = [path.name for path in self.packs.files() if path.name not in self._suspect]
        described = {pack_id: _manifest(self.packs, pack_id) for pack_id in whole}
        with ExitStack() as stack:
            for pack_id, manifest in sorted(described.items(), key=lambda kv: _bases_first(kv[1])):
                try:
                    self._pack(pack_id, manifest, stack)
                except (PvError, OSError) as error:
                    self._damaged(pack_id, str(error))
                self._advance(pack_id)
            self._references(stack)
        return self.report.plus(self.found, deep=True)

    def _pack(self, pack_id: str, manifest: BaseManifest | VectorManifest | None, stack: ExitStack) -> None:
        if manifest is None:
            load_rows(pack_id, self.packs)
            return
        if isinstance(manifest, BaseManifest):
            with Pack(self.packs.path(pack_id), expect=pack_id) as pack:
                self._decode(pack, {(name, "w"): None for name in manifest.tensors})
            return
        base = self._base(manifest.base, stack)
        if base is None or not self._vector(pack_id, base):
            hint = "put it back, and run `pv fsck --deep` again"
            what = f"not decoded: its base {manifest.base[:12]} is not at hand"
            self.found.append(self.report.about_pack(pack_id, "unchecked", what, hint=hint))

    def _vector(self, pack_id: str, base: Base) -> bool:
        """False if the base turns out to be another: a changed base looks like a damaged pack."""
        with open_vector(pack_id, base, self.packs) as vector:
            rows = vector.manifest.tensors
            references = {
                (name, part): reference_to(base, name, parts)
                for name, parts in rows.items()
                for part in parts
            }
            try:
                self._decode(vector.pack, references)
            except CorruptPack:
                for name in {name for (name, _), reference in references.items() if reference}:
                    try:
                        base.verified(name)
                    except BaseMismatch:
                        return False
                raise
            except BaseMismatch:
                return False
        return True

    def _decode(self, pack: Pack, parts: Mapping[tuple[str, str], object]) -> None:
        def work(key: tuple[str, str]) -> None:
            for _ in pack.stream(*key, parts[key]):  # type: ignore[arg-type]
                pass

        for _ in ordered_map(work, sorted(parts), threads=self.threads):
            pass

    def _base(self, base_id: str, stack: ExitStack) -> Base | None:
        """The base, out of its pack if that is whole; None if it is not at hand."""
        if base_id not in self._bases:
            self._bases[base_id] = None
            manifest = self.report.bases.get(base_id) or _manifest(self.packs, base_id)
            if isinstance(manifest, BaseManifest):
                if self._is_pinned(base_id):
                    manifest = replace(manifest, origin={})
                try:
                    base = open_base(manifest, self.packs, fetch=self.fetch)
                    self._bases[base_id] = stack.enter_context(base)
                except MissingBase:
                    pass
                except IntegrityError as error:
                    self._wrong[base_id] = error
        return self._bases[base_id]

    def _is_pinned(self, base_id: str) -> bool:
        return self.packs.has(base_id) and base_id not in self._suspect

    def _references(self, stack: ExitStack) -> None:
        """Bases that are only referred to: are the files where they came from still those?"""
        for base_id, manifest in sorted(self.report.bases.items()):
            if self._is_pinned(base_id):
                continue
            where = origin_in_words(manifest)
            base = self._base(base_id, stack)
            if base_id in self._wrong:
                self.found.append(_wrong_base(self.report, where, str(self._wrong[base_id])))
            elif base is None:
                what = f"base {base_id[:12]} is not at hand: builds need it"
                self.found.append(Finding("unchecked", where, what))
            elif base_id not in self._suspect:
                names = sorted(manifest.tensors)
                rows = ordered_map(partial(row_of, base.weights), names, threads=self.threads)
                changed = [n for n, row in zip(names, rows, strict=True) if row != manifest.tensors[n]]
                if changed:
                    what = f"{len(changed)} of its tensors are not those of base {base_id[:12]}, {changed[0]} ..."
                    self.found.append(_wrong_base(self.report, where, what))

    def _damaged(self, pack_id: str, what: str) -> None:
        self._suspect.add(pack_id)
        self._bases.pop(pack_id, None)
        self.found.append(self.report.about_pack(pack_id, "pack", what, repairable=True))

    def _advance(self, pack_id: str) -> None:
        self._done += self.packs.size(pack_id)
        if self._progress:
            self._progress("decoding", self._done, self._total)


def _manifest(packs: PackStore, pack_id: str) -> BaseManifest | VectorManifest | None:
    """None for training rows, and for what cannot be read."""
    with suppress(PvError, OSError):
        return packfile.inspect(packs.path(pack_id), pack_id).manifest
    return None


def _bases_first(manifest: BaseManifest | VectorManifest | None) -> bool:
    return not isinstance(manifest, BaseManifest)


def _rank(report: Report, finding: Finding) -> tuple[int, str]:
    """Bases first, since vectors are decoded against them; derived vectors last."""
    pack_id = finding.where.rpartition("/")[2]
    derived = report.provenance.get(pack_id, {}).get("kind") == "derived"
    return (0 if pack_id in report.bases else 2 if derived else 1, pack_id)


def _restore(root: Path, report: Report, finding: Finding, fetch: Fetch | None, threads: int) -> Mended:
    """Put a lost pack back, if it can be made again."""
    pack_id = finding.where.rpartition("/")[2]
    packs = PackStore(root)
    try:
        with packs.scratch("repair") as folder:
            scratch = PackStore(folder)
            how = _make_again(report, pack_id, packs, scratch, fetch, threads)
            if how is None:
                return Mended(finding.where, _advice(report, pack_id), done=False)
            if not scratch.has(pack_id):
                return Mended(
                    finding.where, f"{how}, and became another: {_advice(report, pack_id)}", done=False
                )
            packfile.inspect(scratch.path(pack_id), pack_id)
            packs.put(scratch.path(pack_id), pack_id)
    except PvError as error:
        return Mended(finding.where, f"cannot be made again: {error}", done=False)
    return Mended(finding.where, how)


def _make_again(
    report: Report, pack_id: str, packs: PackStore, scratch: PackStore, fetch: Fetch | None, threads: int
) -> str | None:
    """Make the pack in `scratch`; says how. None if nothing here knows how."""
    base = report.bases.get(pack_id)
    if base is not None:
        with _origin(base, fetch) as checkpoint:
            pin(checkpoint, base, scratch, threads=threads)
        return f"copied again from {origin_in_words(base)}"
    facts = report.provenance.get(pack_id, {})
    source, recipe = facts.get("derived_from"), facts.get("encoding")
    if facts.get("kind") == "derived" and isinstance(source, str) and isinstance(recipe, str):
        with ExitStack() as stack:
            described = _manifest(packs, source)
            if not isinstance(described, VectorManifest) or described.base not in report.bases:
                return None
            base_there = stack.enter_context(open_base(report.bases[described.base], packs, fetch=fetch))
            vector = stack.enter_context(open_vector(source, base_there, packs))
            derive(vector, Recipe.parse(recipe), scratch, threads=threads)
        return f"derived again from vector {source[:12]}"
    return None


@contextmanager
def _origin(base: BaseManifest, fetch: Fetch | None) -> Iterator[Checkpoint]:
    """The checkpoint that a base came from. Raises MissingBase, BaseMismatch."""
    path = base.origin.get("path")
    if path is None and base.origin.get("kind") == "hub" and fetch is not None:
        path = str(fetch(base.origin["repo"], base.origin["revision"]))
    if path is None or not Path(path).exists():
        raise MissingBase(f"{origin_in_words(base)} is not there")
    with Checkpoint(Path(path)) as checkpoint:
        if {n: (s.dtype, s.shape) for n, s in checkpoint.specs.items()} != {
            n: (r.dtype, r.shape) for n, r in base.tensors.items()
        }:
            raise BaseMismatch(f"{path} holds another checkpoint now")
        yield checkpoint


def _advice(report: Report, pack_id: str) -> str:
    """What a person can do about a pack that cannot be made again from what is here."""
    use = report.uses.get(pack_id)
    names = ", ".join(sorted(use.behaviours)) if use else ""
    facts = report.provenance.get(pack_id, {})
    if use is not None and use.kind == "rows":
        return "training rows cannot be made again: `pv train` with the same file puts them back"
    match facts.get("kind"):
        case "captured":
            return (
                f"a captured vector cannot be made again: `pv commit {facts.get('source', 'CHECKPOINT')} "
                f"--as {names or 'NAME'}` with the same checkpoint puts it back"
            )
        case "trained":
            return f"train it again: {_training(facts, names or 'NAME')}"
        case "derived":
            return f"the vector that it was derived from is gone too: pv pack {names or 'NAME'} --to ENCODING"
    return "nothing here knows how to make it again: a clone or a remote may have it"


def _training(facts: Mapping[str, Any], name: str) -> str:
    """The command that a trained vector's provenance tells of."""
    words = ["pv train", str(facts.get("data", {}).get("name", "ROWS.jsonl")), "--as", name]
    options = facts.get("options", {})
    keys = ("optimizer", "lr", "epochs", "batch", "rank", "max_steps", "preference", "seed")
    words += [f"--{k.replace('_', '-')} {options[k]}" for k in keys if options.get(k) is not None]
    return " ".join(words)
