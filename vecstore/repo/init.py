"""init: a registry on a base checkpoint. It appears when all of it is there."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry.layout import FOLDER
from pv.registry.persona import Output, Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.download import fetch, is_hub_id, pin_revision
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.progress import Report, Tick, stage
from pv.vecstore.vectors.base import base_manifest
from pv.vecstore.vectors.pinned import pin

__all__ = ["Initialised", "init"]


@dataclass(frozen=True, slots=True)
class Initialised:
    """A new registry: its `.pv` folder, the id of its base, its first commit."""

    registry: Path
    base: str
    commit: str
    tensors: int

    def to_json(self) -> dict[str, Any]:
        return {
            "registry": str(self.registry),
            "base": self.base,
            "commit": self.commit,
            "tensors": self.tensors,
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
    """Make a registry in `directory`, on a checkpoint folder or a Hub id (`user/name[@revision]`).

    A local base is copied into the registry unless it is only to be a `reference`; a relative one is `seen_from`
    the current folder by default. Raises UsageError if there is a registry already, NotFoundError,
    CheckpointRefused, MissingBase.
    """
    Persona("0" * 64, output=output or Output()).checked()
    with Registry.creating(directory) as registry:
        folder, origin = _found(base, seen_from or Path.cwd(), progress)
        pinned = origin["kind"] == "path" and not reference
        with Checkpoint(folder) as checkpoint:
            files = side_files(folder)
            manifest = base_manifest(
                checkpoint,
                origin,
                tuple(sorted(files)),
                pinned=pinned,
                threads=threads,
                progress=stage(progress, "hashing the base"),
            )
            if pinned:
                update = stage(progress, "copying it into the registry")
                pin(checkpoint, manifest, registry.packs, threads=threads, progress=update)
        persona = Persona(manifest.id, output=output or Output())
        name = Path(origin.get("path") or origin["repo"]).name
        commit = registry.start(persona, manifest, files, f"Begin on {name}", command=command)
    return Initialised(directory / FOLDER, manifest.id, commit, len(manifest.tensors))


def _found(base: str | Path, seen_from: Path, progress: Report | None) -> tuple[Path, dict[str, str]]:
    """Where the base's files are, and where they come from."""
    folder = Path(os.path.normpath(seen_from / Path(base).expanduser()))
    if isinstance(base, Path) or folder.exists() or not is_hub_id(base):
        return folder, {"kind": "path", "path": str(folder)}
    repo, revision = pin_revision(base)
    if progress is not None:
        progress(Tick(f"fetching {repo} at {revision[:12]}", 0, 0, unit=""))
    return fetch(repo, revision), {"kind": "hub", "repo": repo, "revision": revision}
