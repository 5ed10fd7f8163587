"""commit: a fine-tuned checkpoint, or an adapter, kept as a behaviour."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, UsageError
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.persona import Term
from pv.registry.provenance import Captured, TrainedOn
from pv.vecstore.checkpoints.brought import brought
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.place import Place, find
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.built_from import Source, besides, check_built_from, subtracted
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.repo.opening import Opened, opened
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.adapters.config import read_config
from pv.vecstore.vectors.adapters.file import is_adapter
from pv.vecstore.vectors.adapters.named_base import differs, name_in_config, names_of_base
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.origin import base_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["LEVELS", "Capture", "commit"]

LEVELS = ("default", "max")
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Capture:
    """A checkpoint or adapter that was committed.

    `parts` counts its tensors by how they are kept: "factors", "difference", "whole". `subtracted` are the behaviours
    of `on` that are taken off again. `put_back`: the pack of this very vector had been lost, and nothing else has
    changed. `notes` are worth reading.
    """

    commit: str
    branch: str
    name: str
    vector: str
    encoding: str
    parts: dict[str, int]
    stored_bytes: int
    on: TrainedOn | None = None
    subtracted: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    put_back: bool = False

    @property
    def tensors(self) -> int:
        return sum(self.parts.values())

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "name": self.name,
            "vector": self.vector,
            "put_back": self.put_back,
            "encoding": self.encoding,
            "tensors": self.tensors,
            "kept_as": dict(self.parts),
            "stored_bytes": self.stored_bytes,
            "on": None if self.on is None else self.on.to_json(),
            "subtracted": list(self.subtracted),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class _Asked:
    place: Place
    name: str
    on: Source | None
    level: str
    force: bool
    threads: int
    progress: Report | None

    @property
    def source(self) -> Path:
        return self.place.path


def commit(
    repo: Repo,
    source: str | PathLike[str],
    *,
    name: str,
    on: str | None = None,
    weight: float | None = None,
    level: str = "default",
    force: bool = False,
    message: str | None = None,
    seen_from: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Capture:
    """Keep a checkpoint or adapter bit for bit; of a fine-tune of a build, `on` is the revision.

    `source` is a folder, a Hub id, or the address of a folder in an object store. Raises
    CheckpointRefused, UsageError, MissingBase, RemoteError, and BaseMismatch
    for an adapter of another model.
    """
    if level not in LEVELS:
        raise UsageError(f"no level {level!r}", hint=f"there are: {', '.join(LEVELS)}")
    base = None if on is None else _source(repo, on)
    with long_work(repo, also=[base.commit] if base else ()) as work:
        work.check(name, weight)
        terms = subtracted(base, name) if base else ()
        held = work.manifests(base.commit, {term.vector for term in terms}) if base else {}
        lost = _lost(work, name)
        place = find(source, seen_from=seen_from, progress=progress)
        with brought(place, lambda: work.registry.packs.scratch("fetched"), progress) as here:
            asked = _Asked(here, name, base, level, force, threads, progress)
            manifest, origin, notes = _captured(work, asked)
        notes = place.notes + notes
        terms = (Term(1.0, manifest.id), *terms)
        tip, persona = work.newest()
        if base and besides(persona, name) != besides(base.persona, name):
            notes += (
                f"{name} gives the checkpoint only together with what {base} holds, "
                "and this branch holds something else",
            )
        made = Capture(
            tip, work.branch, name, manifest.id, manifest.encoding, _parts(manifest),
            work.registry.packs.size(manifest.id), origin.on, _named(base, name), notes,
        )  # fmt: skip
        if persona.with_terms(name, terms, weight) == persona:
            if manifest.id not in lost:
                raise UsageError(
                    f"nothing changed: {name} is vector {manifest.id[:12]} already",
                    hint=f"`pv show {name}` shows it; `pv scale {name} WEIGHT` sets its weight",
                )
            return replace(made, put_back=True)
        trained_on = f" --on {on}" if on else ""
        command = repo.command(f"commit {os.fspath(source)} --as {name}{trained_on}")
        made_here = {manifest.id: (manifest, origin)}
        said = message or f"Commit {name}"
        landed, told = work.land_version(command, said, name, weight, terms, made_here, held)
    return replace(made, commit=landed, notes=notes + told)


def _named(base: Source | None, name: str) -> tuple[str, ...]:
    """The behaviours that are subtracted."""
    return tuple(sorted(besides(base.persona, name))) if base else ()


def _source(repo: Repo, revision: str) -> Source:
    commit = repo.registry.resolve(revision)
    return Source(commit, revision, repo.registry.persona(commit))


def _captured(work: LongWork, asked: _Asked) -> tuple[VectorManifest, Captured, tuple[str, ...]]:
    """The vector's manifest, where it came from, and what its owner should know."""
    files = work.registry.base_files(work.commit)
    with opened(work.registry, work.commit) as at:
        names = names_of_base(at.base.manifest, files)
        if is_adapter(asked.source):
            return _adapter(work, asked, at, names)
        notes: list[str] = []
        strange: list[str] = []

        def inspect(*checkpoint: Any) -> None:
            if not asked.force:
                how: dict[str, Any] = {"threads": asked.threads, "progress": asked.progress}
                where = (work.registry, at.base, asked.source, asked.name, asked.on)
                notes.extend(check_built_from(*where, *checkpoint, **how))

        with Checkpoint(asked.source) as checkpoint:
            manifest = capture(
                checkpoint,
                at.base,
                work.registry.packs,
                smallest=asked.level == "max",
                inspect=inspect,
                strange=strange.append,
                threads=asked.threads,
                progress=stage(asked.progress, "capturing"),
            )
        notes += [*_about(strange, work.persona.engine), *_config_note(asked.source, names, at.base.manifest)]
    on = TrainedOn(asked.on.commit, asked.on.persona.id) if asked.on else None
    return manifest, Captured(asked.place.name, on=on), tuple(notes)


def _adapter(
    work: LongWork, asked: _Asked, at: Opened, names: list[str]
) -> tuple[VectorManifest, Captured, tuple[str, ...]]:
    if asked.on:
        raise UsageError(
            f"{asked.source} is an adapter: it holds its own difference only, and there is nothing to subtract",
            hint="leave out --on; for DoRA and whole modules trained on a build, merge it there and commit the "
            "checkpoint with --on",
        )
    notes = _trained_from(asked, names, at.base.manifest)
    update = stage(asked.progress, "capturing")
    packs = work.registry.packs
    manifest, facts = capture_adapter(asked.source, at.base, packs, threads=asked.threads, progress=update)
    return manifest, Captured(asked.place.name, facts), (*notes, *facts.get("notes", ()), *_dora(facts))


def _trained_from(asked: _Asked, names: list[str], base: BaseManifest) -> tuple[str, ...]:
    """A remark on which model an adapter was trained from. Raises BaseMismatch if that is another than the base."""
    folder = asked.source.parent if asked.source.is_file() else asked.source
    said = read_config(folder).document.get("base_model_name_or_path")
    if not isinstance(said, str) or not said:
        return ("its adapter_config.json does not say which model it was trained on",)
    other = differs(said, names)
    if other and not asked.force:
        raise BaseMismatch(
            f"{folder} was trained on {said}, the base here is {base_in_words(base)}",
            hint="an adapter means nothing on another model; if it is the same under another name: --force",
        )
    if other is False:
        return ()
    return (f"it was trained on {said}; the base here is {base.name}",)


def _config_note(source: Path, names: list[str], base: BaseManifest) -> list[str]:
    """A full checkpoint fits every base of its shape: what its config.json says of where it came from."""
    config = (source if source.is_dir() else source.parent) / "config.json"
    if not config.is_file() or config.stat().st_size > MAX_CONFIG_BYTES:
        return []
    said = name_in_config(config.read_bytes())
    if said is None or not differs(said, names):
        return []
    return [f"its config.json names {said}; what is kept is the difference from {base.name}"]


def _dora(facts: dict[str, Any]) -> tuple[str, ...]:
    dense = len(facts["dense"])
    if not dense:
        return ()
    what = "1 tensor is kept as its" if dense == 1 else f"{dense} tensors are kept as their"
    return (
        f"{what} difference from the base in fp32, which takes more space: DoRA is not low-rank factors alone",
    )


def _parts(manifest: VectorManifest) -> dict[str, int]:
    """How many tensors are kept as factors, as their difference from the base, and whole."""
    kinds = {"ft": "whole", "tau": "difference"}
    found = (
        next((kinds[part] for part in parts if part in kinds), "factors")
        for parts in manifest.tensors.values()
    )
    return dict(sorted(Counter(found).items()))


def _about(strange: list[str], engine: int) -> list[str]:
    if not strange:
        return []
    more = f" and {len(strange) - 1} more tensors" if len(strange) > 1 else ""
    builds = (
        "; no build with engine 1 does"
        if engine < 2
        else ", and so does a build of this behaviour alone at weight 1"
    )
    return [f"{strange[0]}{more}: some values are not finite: `pv export` gives them back{builds}"]


def _lost(work: LongWork, name: str) -> set[str]:
    """The behaviour's vectors whose packs are gone or damaged."""
    known = work.persona.behaviours.get(name)
    vectors = {term.vector for term in known.terms} if known else set()
    return {vector for vector in vectors if not work.registry.packs.is_whole(vector)}
