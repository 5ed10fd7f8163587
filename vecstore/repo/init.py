"""init: a registry on a base checkpoint. It appears when all of it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry.errors import NotARegistry
from pv.registry.layout import FOLDER
from pv.registry.layout import find as find_registry
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Output, Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.place import find
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.progress import Report, stage
from pv.vecstore.vectors.base import base_manifest
from pv.vecstore.vectors.origin import base_in_words
from pv.vecstore.vectors.pinned import pin

__all__ = ["Initialised", "init"]


@dataclass(frozen=True, slots=True)
class Initialised:
    """A new registry: its `.pv` folder, its base, its first commit.

    `stored_bytes` is what the copy of the base takes, None if there is none. `notes` are worth reading.
    """

    registry: Path
    manifest: BaseManifest
    commit: str
    stored_bytes: int | None
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        return base_in_words(self.manifest)

    def to_json(self) -> dict[str, Any]:
        return {
            "registry": str(self.registry),
            "base": self.manifest.id,
            "name": self.manifest.name,
            "commit": self.commit,
            "tensors": len(self.manifest.tensors),
            "stored_bytes": self.stored_bytes,
            "notes": list(self.notes),
        }


def init(
    directory: Path,
    base: str | Path,
    *,
    reference: bool = False,
    output: Output | None = None,
    command: str = "init",
    seen_from: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Initialised:
    """Make a registry in `directory`, on a checkpoint folder or a Hub id (`user/name[@revision]`, `hf://user/name`).

    A local base is copied into the registry unless it is only to be a `reference`; a relative one is `seen_from`
    the current folder by default. Raises UsageError if there is a registry already, NotFoundError,
    CheckpointRefused, RemoteError.
    """
    Persona("0" * 64, output=output or Output()).checked()
    with Registry.creating(directory) as registry:
        place = find(base, seen_from=seen_from, progress=progress)
        pinned = place.origin["kind"] == "path" and not reference
        with Checkpoint(place.path) as checkpoint:
            files = side_files(place.path)
            manifest = base_manifest(
                checkpoint,
                dict(place.origin),
                tuple(sorted(files)),
                pinned=pinned,
                threads=threads,
                progress=stage(progress, "hashing the base"),
            )
            if pinned:
                update = stage(progress, "copying it into the registry")
                pin(checkpoint, manifest, registry.packs, threads=threads, progress=update)
        persona = Persona(manifest.id, output=output or Output())
        commit = registry.start(persona, manifest, files, f"Begin on {manifest.name}", command=command)
        stored = registry.packs.size(manifest.id) if pinned else None
    notes = (*place.notes, *_inside(directory))
    return Initialised(directory / FOLDER, manifest, commit, stored, notes)


def _inside(directory: Path) -> tuple[str, ...]:
    """What is worth knowing of a registry in a registry."""
    try:
        outer = find_registry(directory.absolute().parent)
    except NotARegistry:
        return ()
    return (f"it lies inside the registry of {outer.parent}; in {directory}, pv uses this one",)
