"""base: what a revision's base is and where it is now; and, of one that has moved, to where."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.errors import BaseMismatch
from pv.registry.manifest import BaseManifest
from pv.vecstore.progress import Report, stage
from pv.vecstore.vectors.origin import base_in_words, place_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["BaseState", "Found", "base_state", "move_base"]

Found = Literal["folder", "registry", "hub"]
_LICENCE = re.compile(r"(?:LICEN[SC]E|COPYING)(?:[.-].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class BaseState:
    """A base, and where it is read from now: a folder, the registry's own copy, or its Hub; None: nowhere.

    `origin` is where it was when the registry began, `moved` where `move_base` has said that it is. A folder was seen,
    not read: whether it still holds these bytes is checked when it is used.
    """

    manifest: BaseManifest
    moved: Mapping[str, str] | None
    pinned: bool
    found: Found | None
    path: Path | None
    licence: str | None
    notes: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """`SmolLM2-135M-Instruct (1fa69c1ae151)`"""
        return base_in_words(self.manifest)

    @property
    def looked_at(self) -> str:
        """Where it is, or should be."""
        return place_in_words(self.moved or self.manifest.origin)

    @property
    def origin(self) -> str:
        return place_in_words(self.manifest.origin)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.manifest.id,
            "name": self.manifest.name,
            "origin": dict(self.manifest.origin),
            "moved": None if self.moved is None else dict(self.moved),
            "pinned": self.pinned,
            "found": self.found,
            "path": None if self.path is None else str(self.path),
            "licence": self.licence,
            "tensors": len(self.manifest.tensors),
            "bytes": sum(row.nbytes for row in self.manifest.tensors.values()),
        }


def base_state(revision: Revision, notes: tuple[str, ...] = ()) -> BaseState:
    """Quick: nothing is read but names, and no Hub is asked."""
    manifest, registry = revision.base, revision.registry
    moved, pinned = registry.places.of(manifest.id), registry.packs.has(manifest.id)
    places = [place for place in (moved, manifest.origin) if place is not None]
    paths = [Path(place["path"]) for place in places if "path" in place]
    path = next((path for path in paths if path.exists()), None)
    found: Found | None = "folder" if path else "registry" if pinned else None
    if found is None and any(place["kind"] == "hub" for place in places):
        found = "hub"
    return BaseState(manifest, moved, pinned, found, path, _licence(manifest, path), notes)


def move_base(
    revision: Revision,
    to: str | PathLike[str],
    *,
    seen_from: Path | None,
    threads: int,
    progress: Report | None,
) -> BaseState:
    """Note that the base is at `to` now, a folder or a Hub id, once every tensor there has been seen to be its.

    Raises BaseMismatch, NotFoundError, RemoteError, and what is wrong with a checkpoint.
    """
    from pv.vecstore.checkpoints.checkpoint import Checkpoint
    from pv.vecstore.checkpoints.compare import differences
    from pv.vecstore.checkpoints.fingerprint import fingerprint
    from pv.vecstore.checkpoints.place import find

    manifest = revision.base
    place = find(to, seen_from=seen_from, progress=progress)
    with Checkpoint(place.path) as checkpoint:
        table = fingerprint(checkpoint, threads=threads, progress=stage(progress, "hashing the base"))
    wrong = list(differences(manifest.tensors, table, owner="the base"))
    if wrong:
        raise BaseMismatch(
            f"{place_in_words(place.origin)} is not base {base_in_words(manifest)}: {len(wrong)} of its "
            f"{len(manifest.tensors)} tensors differ; {wrong[0]}",
            hint="vectors belong to exactly these bytes; for another base, create another registry with pv init",
        )
    same = dict(place.origin) == dict(manifest.origin)
    revision.registry.places.move(manifest.id, None if same else place.origin)
    return base_state(revision, place.notes)


def _licence(manifest: BaseManifest, path: Path | None) -> str | None:
    """The licence among the files that are kept with a base, or that lies where it is."""
    kept = [name for name in manifest.files if _LICENCE.fullmatch(name)]
    beside = sorted(file.name for file in path.iterdir()) if path is not None and path.is_dir() else []
    found = kept or [str(path / name) for name in beside if path and _LICENCE.fullmatch(name)]
    return found[0] if found else None
