"""One weight file that is being written: any tensor at any time, each at its place.

It may be one that an interrupted process left: what is in it already is looked at before it is believed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pv.registry import ids
from pv.registry.disk import durable
from pv.registry.disk.closing import Closing
from pv.registry.errors import StorageError
from pv.registry.manifest import TensorRow
from pv.vecstore.merge.shards import Shard

__all__ = ["Finished", "Placed", "WeightFile", "Write"]

PIECE_BYTES = 1 << 20

Write = Callable[[memoryview], None]
"""Appends bytes to a tensor."""


@dataclass(frozen=True, slots=True)
class Finished:
    """One tensor that was written, and how many elements moved (None: no vector touches it)."""

    name: str
    row: TensorRow
    moved: int | None


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor's bytes in another file, as they are said to be."""

    fd: int
    offset: int
    finished: Finished


class WeightFile(Closing):
    """Made, or opened where it was left."""

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path, self.shard = path, shard
        sizes = [spec.nbytes for spec in shard.tensors.values()]
        self._place = dict(zip(shard.tensors, accumulate(sizes, initial=len(shard.head)), strict=False))
        self._end = len(shard.head) + sum(sizes)
        self._digest, self._hashed = hashlib.sha256(), 0
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            _write_all(self._fd, memoryview(shard.head), 0)
        except BaseException:
            os.close(self._fd)
            raise

    def writer(self, name: str) -> Write:
        """A function that appends bytes to one tensor; several may be at work."""
        at = self._place[name]

        def write(data: memoryview) -> None:
            nonlocal at
            _write_all(self._fd, data, at)
            at += len(data)

        return write

    def holds(self, name: str, tensor_id: str) -> bool:
        """Whether the tensor's bytes in the file hash to this id."""
        spec = self.shard.tensors[name]
        digest = ids.tensor_hash(spec.dtype, spec.shape)
        with contextlib.suppress(EOFError):
            for piece in self._pieces(self._place[name], self._place[name] + spec.nbytes):
                digest.update(piece)
            return digest.hexdigest() == tensor_id
        return False

    def copy(self, source: Placed) -> bool:
        """Take a tensor's bytes out of another file; False if they are not what they are said to be."""
        name, row = source.finished.name, source.finished.row
        own = self.shard.tensors[name]
        if (own.dtype, own.shape) != (row.dtype, row.shape):
            return False
        try:
            _copy(source.fd, source.offset, self._fd, self._place[name], row.nbytes)
        except EOFError:
            return False
        return self.holds(name, row.id)

    def passed(self, name: str) -> None:
        """All up to the end of this tensor is written: it is hashed, while it is still in memory."""
        end = self._place[name] + self.shard.tensors[name].nbytes
        try:
            for piece in self._pieces(self._hashed, end):
                self._digest.update(piece)
                self._hashed += len(piece)
        except EOFError:
            raise StorageError(
                f"{self.path} became shorter while it was being written", hint="run the command again"
            ) from None

    def finish(self) -> str:
        """Sync; the file's SHA-256."""
        os.ftruncate(self._fd, self._end)
        durable.fsync_file(self._fd)
        return self._digest.hexdigest()

    def close(self) -> None:
        os.close(self._fd)

    def _pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Valid until the next one is asked for. Raises EOFError."""
        piece = memoryview(bytearray(max(0, min(PIECE_BYTES, stop - start))))
        while start < stop:
            got = os.preadv(self._fd, [piece[: stop - start]], start)
            if not got:
                raise EOFError
            yield piece[:got]
            start += got


def _write_all(fd: int, data: memoryview, at: int) -> None:
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def _copy(source: int, start: int, target: int, at: int, count: int) -> None:
    """By the system, which may share the blocks; where it cannot, by hand. Raises EOFError."""
    done = 0
    if hasattr(os, "copy_file_range"):
        with contextlib.suppress(OSError):  # between file systems, say; a full disk is met again below
            while done < count and (
                got := os.copy_file_range(source, target, count - done, start + done, at + done)
            ):
                done += got
    while done < count:
        piece = os.pread(source, min(PIECE_BYTES, count - done), start + done)
        if not piece:
            raise EOFError
        _write_all(target, memoryview(piece), at + done)
        done += len(piece)
