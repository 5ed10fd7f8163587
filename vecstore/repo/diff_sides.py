"""What the two words after `pv diff` are: revisions of a registry, or checkpoints, here or in an object store."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import NotARegistry, PvError, UnknownRevision, UsageError
from pv.vecstore.checkpoints.object_store import is_store_url

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.revision import Revision

__all__ = ["Sides", "sides"]


@dataclass(frozen=True, slots=True)
class Sides:
    """A string is an address in an object store. `notes` are about words that could have meant both."""

    a: Revision | Path | str
    b: Revision | Path | str
    notes: tuple[str, ...] = ()


def sides(
    a: str, b: str | None, *, repo: Callable[[], Repo], seen_from: Path, incoming: bool = False
) -> Sides:
    """A path ("./x", "x/y", "/x") is a checkpoint where there is one; a plain word first of all a revision.

    Without `b`: HEAD; if `incoming`, a checkpoint without `b` is what HEAD is compared with. Raises UnknownRevision,
    NotARegistry where a revision needs one, NotFoundError.
    """
    notes: list[str] = []

    def side(word: str) -> Revision | Path | str:
        if is_store_url(word):
            return word
        path = Path(os.path.normpath(seen_from / Path(word).expanduser()))
        if path.exists() and _is_path(word):
            return path
        try:
            revision = repo().at(word)
        except (UnknownRevision, UsageError, NotARegistry) as error:
            if path.exists():
                return path
            if os.sep in word or (isinstance(error, NotARegistry) and b is not None):
                raise _neither(error, word) from error
            raise
        if path.is_dir() or (path.suffix == ".safetensors" and path.exists()):
            notes.append(f"{word} is a revision here, and that is taken; ./{word} is the checkpoint")
        return revision

    first = side(a)
    if incoming and b is None and isinstance(first, Path | str):
        return Sides(repo().at("HEAD"), first, tuple(notes))
    try:
        return Sides(first, side("HEAD" if b is None else b), tuple(notes))
    except NotARegistry as error:
        if b is not None or not isinstance(first, Path):
            raise
        raise NotARegistry(
            f"{a} is one checkpoint, and {error}", hint=f"name the other checkpoint too: pv diff {a} DIR"
        ) from error


def _is_path(word: str) -> bool:
    return os.sep in word or word in (".", "..") or word.startswith("~")


def _neither(error: PvError, word: str) -> PvError:
    if isinstance(error, NotARegistry):
        return NotARegistry(
            f"{error}; and there is no checkpoint at {word}",
            hint="two checkpoint folders can be compared anywhere: pv diff ./A ./B; revisions only in a registry",
        )
    return type(error)(f"{error}; and there is no checkpoint at {word}", hint=error.hint)
