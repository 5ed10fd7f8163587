"""Git objects read from their own files, byte by byte, without git.

git passes over a few kinds of damage (it calls a file that it cannot read "missing", and checks nothing
that no ref leads to); and where HEAD is damaged it refuses the whole repository. What checks a registry
must not depend on that. Objects that a fetch left in a git pack are still read through git.

Invariant: bytes that come out hash to the id that was asked for, and no other bit of the file is changed.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from pv.registry.errors import IntegrityError, NotFoundError
from pv.registry.git.process import MAX_OBJECT_BYTES, GitProcess, ObjectReader, damaged

__all__ = ["LooseReader", "blob", "object_path", "read_loose", "salvage", "stored"]

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
    data, rest = _inflate(packed)
    header = _HEADER.match(data)
    if header is None or rest or not _is(object_id, data) or _has_rotted(packed, data):
        raise damaged(object_id)
    return header[1].decode(), data[header.end() :]


def blob(content: bytes) -> tuple[str, bytes]:
    """The id of a blob, and what git hashes for it: a header and the content."""
    data = b"blob %d\0" % len(content) + content
    return hashlib.sha1(data, usedforsecurity=False).hexdigest(), data


def salvage(path: Path, object_id: str) -> bytes | None:
    """What git hashed for the object, header and all, if the damage to the file has left it unharmed."""
    try:
        data, _ = _inflate(path.read_bytes())
    except OSError:
        return None
    return data if _is(object_id, data) else None


def _inflate(packed: bytes) -> tuple[bytes, bytes]:
    """The data, and what follows it in the file. The data is empty if it cannot be read."""
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(packed, MAX_OBJECT_BYTES)
    except zlib.error:
        return b"", b""
    return (data, unpack.unused_data) if unpack.eof else (b"", b"")


def _is(object_id: str, data: bytes) -> bool:
    header = _HEADER.match(data)
    return (
        header is not None
        and len(data) - header.end() == int(header[2])
        and hashlib.sha1(data, usedforsecurity=False).hexdigest() == object_id
    )


def _has_rotted(packed: bytes, data: bytes) -> bool:
    """Whether bits have changed that mean nothing: deflate has some, and zlib leaves them at zero.

    Compressed again by the same zlib, the file comes out as it was written; by another, as quite another
    file. One that comes out nearly the same has rotted.
    """
    again = zlib.compress(data, 1 if packed[1] == 0x01 else -1)  # git's level for loose objects, and ours
    if again == packed:
        return False
    if len(again) == len(packed) and sum(a != b for a, b in zip(again, packed, strict=True)) <= 4:
        return True
    # The unused bits at the end are the topmost of their byte, and four bytes of checksum follow it.
    last = len(packed) - 5
    cleared = packed[last] ^ 1 << packed[last].bit_length() - 1 if packed[last] else 0
    return packed[last] != 0 and _inflate(packed[:last] + bytes([cleared]) + packed[last + 1 :])[0] == data


def stored(git_dir: Path) -> Iterator[str]:
    """Ids of the loose objects, sorted."""
    objects = git_dir / "objects"
    if not objects.is_dir():
        return
    for shard in sorted(objects.iterdir()):
        if _SHARD.fullmatch(shard.name) and shard.is_dir():
            yield from (shard.name + p.name for p in sorted(shard.iterdir()) if _REST.fullmatch(p.name))


class LooseReader:
    """A reader for `GitRepository` that takes loose objects from their files, and asks git for the others."""

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
