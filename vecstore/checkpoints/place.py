"""Where a checkpoint is that a user named: a folder, a file, a repository on a Hub, or an object store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from pv.registry.errors import UsageError
from pv.vecstore.checkpoints.download import fetch, hub_target, is_hub_id, pin_revision
from pv.vecstore.checkpoints.object_store import ObjectFolder, is_store_url
from pv.vecstore.progress import Report, said

__all__ = ["Place", "find"]


@dataclass(frozen=True, slots=True)
class Place:
    """`where` the files are, `origin` where they come from, as in a base manifest."""

    where: Path | ObjectFolder
    origin: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Raises UsageError for what is in an object store."""
        if isinstance(self.where, Path):
            return self.where
        raise UsageError(
            f"{self.where} is not on this machine, and this needs the files here",
            hint="copy the folder here first, and name that",
        )

    @property
    def name(self) -> str:
        """For a record of where something came from: the folder's name, or the Hub's address, or the store's."""
        match self.origin:
            case {"url": url}:
                return url
            case {"repo": repo, "revision": revision}:
                return f"hf://{repo}@{revision}"
        return self.path.name


def find(
    named: str | PathLike[str], *, seen_from: Path | None = None, progress: Report | None = None
) -> Place:
    """A folder of that name is taken first; only then is text a Hub id, and fetched. `./user/name` is always a folder.

    Text with a scheme, as in `s3://bucket/folder`, is in an object store. Raises
    NotFoundError, RemoteError and UsageError for a Hub id; whether a folder is there is not looked at.
    """
    if isinstance(named, str) and is_store_url(named) and not is_hub_id(named):
        return Place(ObjectFolder(named), {"kind": "url", "url": named})
    path = Path(os.path.normpath((seen_from or Path.cwd()) / Path(named).expanduser()))
    if not isinstance(named, str) or not is_hub_id(named):
        return Place(path, {"kind": "path", "path": str(path)})
    if path.exists() and "://" not in named:
        note = f"{named} is a folder here, and that is taken; on the Hub it is {hub_target(named)}"
        return Place(path, {"kind": "path", "path": str(path)}, (note,))
    repo, revision = pin_revision(named)
    said(progress, f"fetching {repo} at {revision[:12]}")
    return Place(fetch(repo, revision), {"kind": "hub", "repo": repo, "revision": revision})
