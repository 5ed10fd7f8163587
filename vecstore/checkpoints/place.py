"""Where a checkpoint is that a user named: a folder, a file, or a repository on a Hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pv.vecstore.checkpoints.download import fetch, hub_target, is_hub_id, pin_revision
from pv.vecstore.progress import Report, said

__all__ = ["Place", "find"]


@dataclass(frozen=True, slots=True)
class Place:
    """`path` is where the files are, `origin` where they come from, as in a base manifest."""

    path: Path
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """For a record of where something came from: the folder's name, or the Hub's address."""
        origin = self.origin
        return self.path.name if "path" in origin else f"hf://{origin['repo']}@{origin['revision']}"


def find(
    named: str | PathLike[str], *, seen_from: Path | None = None, progress: Report | None = None
) -> Place:
    """A folder of that name is taken first; only then is text a Hub id, and fetched. `./user/name` is always a folder.

    Raises NotFoundError, RemoteError and UsageError for a Hub id; whether a folder is there is not looked at.
    """
    path = Path(os.path.normpath((seen_from or Path.cwd()) / Path(named).expanduser()))
    if not isinstance(named, str) or not is_hub_id(named):
        return Place(path, {"kind": "path", "path": str(path)})
    if path.exists() and "://" not in named:
        note = f"{named} is a folder here, and that is taken; on the Hub it is {hub_target(named)}"
        return Place(path, {"kind": "path", "path": str(path)}, (note,))
    repo, revision = pin_revision(named)
    said(progress, f"fetching {repo} at {revision[:12]}")
    return Place(fetch(repo, revision), {"kind": "hub", "repo": repo, "revision": revision})
