"""commit: a fine-tuned checkpoint, or an adapter, kept as a behaviour."""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.persona import Term
from pv.registry.provenance import Captured
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.place import Place, find
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.repo.opening import opened
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.adapters.file import is_adapter
from pv.vecstore.vectors.capture import capture

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["LEVELS", "Capture", "commit"]

LEVELS = ("default", "max")


@dataclass(frozen=True, slots=True)
class Capture:
    """A checkpoint or adapter that was committed.

    `put_back`: the pack of this very vector had been lost, and nothing else has changed. `notes` are worth reading.
    """

    commit: str
    branch: str
    name: str
    vector: str
    tensors: int
    stored_bytes: int
    notes: tuple[str, ...] = ()
    put_back: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "branch": self.branch,
            "name": self.name,
            "vector": self.vector,
            "put_back": self.put_back,
            "tensors": self.tensors,
            "stored_bytes": self.stored_bytes,
            "notes": list(self.notes),
        }


def commit(
    repo: Repo,
    source: str | PathLike[str],
    *,
    name: str,
    weight: float | None = None,
    level: str = "default",
    message: str | None = None,
    seen_from: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Capture:
    """Keep a checkpoint or adapter bit for bit, from a folder or a Hub id.

    Raises CheckpointRefused, UsageError, MissingBase, RemoteError.
    """
    if level not in LEVELS:
        raise UsageError(f"no level {level!r}", hint=f"there are: {', '.join(LEVELS)}")
    with long_work(repo) as work:
        work.check(name, weight)
        lost = _lost(work, name)
        place = find(source, seen_from=seen_from, progress=progress)
        manifest, origin, notes = _captured(work, place, level, threads, progress)
        notes = place.notes + notes
        stored, tensors = work.registry.packs.size(manifest.id), len(manifest.tensors)
        tip, persona = work.newest()
        if persona.with_terms(name, (Term(1.0, manifest.id),), weight) == persona:
            if manifest.id not in lost:
                raise UsageError(f"nothing changed: {name} is vector {manifest.id[:12]} already")
            return Capture(tip, work.branch, name, manifest.id, tensors, stored, notes, put_back=True)
        command = repo.command(f"commit {os.fspath(source)} --as {name}")
        made, more = work.land_version(command, message or f"Commit {name}", name, weight, manifest, origin)
    return Capture(made, work.branch, name, manifest.id, tensors, stored, notes + more)


def _captured(
    work: LongWork, place: Place, level: str, threads: int, progress: Report | None
) -> tuple[VectorManifest, Captured, tuple[str, ...]]:
    """The vector's manifest, where it came from, and what its owner should know."""
    packs, source = work.registry.packs, place.path
    with opened(work.registry, work.commit) as at:
        if is_adapter(source):
            update = stage(progress, "capturing")
            manifest, facts = capture_adapter(source, at.base, packs, threads=threads, progress=update)
            return manifest, Captured(place.name, facts), tuple(facts.get("notes", ()))
        strange: list[str] = []
        with Checkpoint(source) as checkpoint:
            manifest = capture(
                checkpoint,
                at.base,
                packs,
                smallest=level == "max",
                strange=strange.append,
                threads=threads,
                progress=stage(progress, "capturing"),
            )
    return manifest, Captured(place.name), tuple(_about(strange))


def _about(strange: list[str]) -> list[str]:
    if not strange:
        return []
    more = f" and {len(strange) - 1} more tensors" if len(strange) > 1 else ""
    return [f"{strange[0]}{more}: not all numbers are finite. It is kept, but no build can hold them"]


def _lost(work: LongWork, name: str) -> set[str]:
    """The behaviour's vectors whose packs are gone or damaged."""
    known = work.persona.behaviours.get(name)
    vectors = {term.vector for term in known.terms} if known else set()
    return {vector for vector in vectors if not work.registry.packs.is_whole(vector)}
