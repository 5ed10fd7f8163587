"""Git objects read from their own files, byte by byte, without git.

git passes over a few kinds of damage (it calls a file that it cannot read "missing", and checks nothing
that no ref leads to); and where HEAD is damaged it refuses the whole repository. What checks a registry
must not depend on that. Objects that a fetch left in a git pack are still read through git.

Invariant: bytes that come out hash to the id that was asked for, and nothing follows them in the file.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from pv.registry.errors import IntegrityError, NotFoundError
from pv.registry.gitprocess import MAX_OBJECT_BYTES, GitProcess, ObjectReader, damaged

__all__ = ["LooseReader", "object_path", "read_loose", "stored"]

_HEADER = re.compile(rb"(blob|tree|commit|tag) (0|[1-9][0-9]*)\0")
_SHARD = re.compile(r"[0-9a-f]{2}")
_REST = re.compile(r"[0-9a-f]{38}")


def object_path(git_dir: Path, object_id: str) -> Path:
    """Where a loose object lies, or would lie."""
    return git_dir / "objects" / object_id[:2] / object_id[2:]


def read_loose(path: Path, object_id: str) -> tuple[str, bytes]:
    """(type, bytes) of the object in a file. Raises NotFoundError, IntegrityError."""
    try:
        packed = path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"git object {object_id} is missing from history.git") from error
    except OSError as error:
        raise damaged(object_id) from error
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(packed, MAX_OBJECT_BYTES)
    except zlib.error as error:
        raise damaged(object_id) from error
    header = _HEADER.match(data)
    if (
        header is None
        or not unpack.eof
        or unpack.unused_data
        or len(data) - header.end() != int(header[2])
        or hashlib.sha1(data, usedforsecurity=False).hexdigest() != object_id
    ):
        raise damaged(object_id)
    return header[1].decode(), data[header.end() :]


def stored(git_dir: Path) -> Iterator[str]:
    """Ids of the loose objects, sorted."""
    objects = git_dir / "objects"
    if not objects.is_dir():
        return
    for shard in sorted(objects.iterdir()):
        if _SHARD.fullmatch(shard.name) and shard.is_dir():
            yield from (shard.name + p.name for p in sorted(shard.iterdir()) if _REST.fullmatch(p.name))


class LooseReader:
    """A reader for `History` that takes loose objects from their files, and asks git for the others."""

    def __init__(self, git_dir: Path, *, ask_git: bool = True) -> None:
        self._git_dir = git_dir
        self._git = ObjectReader(GitProcess(git_dir)) if ask_git and _has_packs(git_dir) else None

    def get(self, object_id: str) -> tuple[str, bytes] | None:
        """Raises IntegrityError for a damaged one."""
        try:
            return read_loose(object_path(self._git_dir, object_id), object_id)
        except NotFoundError:
            return None if self._git is None else self._git.get(object_id)
        except IntegrityError:
            found = None if self._git is None else self._packed(object_id)
            if found is None:
                raise
            return found

    def _packed(self, object_id: str) -> tuple[str, bytes] | None:
        assert self._git is not None
        try:
            return self._git.get(object_id)
        except IntegrityError:
            return None

    def close(self) -> None:
        if self._git is not None:
            self._git.close()


def _has_packs(git_dir: Path) -> bool:
    folder = git_dir / "objects" / "pack"
    return folder.is_dir() and any(path.suffix == ".pack" for path in folder.iterdir())
