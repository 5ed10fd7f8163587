"""The bytes of one file, read by ranges: of a disk here, or of wherever else somebody reads from.

Whoever reads a checkpoint asks for ranges only. Invariant: a range is given whole or there is an error; a file that has
become another meanwhile is one.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import IO, Protocol

from pv.registry.disk.closing import Closing
from pv.registry.errors import FormatError

__all__ = ["FileRanges", "Ranges"]


class Ranges(Protocol):
    """`name` is the file's own, `where` says to a reader which file it is. Several threads may read."""

    name: str
    where: str
    size: int

    @property
    def stamp(self) -> list[str]:
        """What changes when the file does, as far as can be known without reading it."""
        ...

    def read(self, offset: int, count: int, *, stretch: tuple[int, int] | None = None) -> memoryview:
        """Exactly `count` bytes from `offset`. `stretch`: (start, end) of what is likely to be asked for in order.

        Raises FormatError if the file is shorter.
        """
        ...

    def close(self) -> None: ...


class FileRanges(Closing):
    """A plain file on this machine, or a link to one. Bytes are read on demand with `pread`.

    Not mapped on purpose: a map counts as memory, and a file that shrinks underneath kills the process.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError; FormatError for a pipe, which could keep us waiting for ever."""
        self.path, self.name, self.where = path, path.name, str(path)
        self._file = _open(path)
        self.size = os.fstat(self._file.fileno()).st_size

    def fileno(self) -> int:
        return self._file.fileno()

    @property
    def stamp(self) -> list[str]:
        found = os.fstat(self._file.fileno())
        numbers = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        return [str(self.path.resolve()), *map(str, numbers)]

    def read(self, offset: int, count: int, *, stretch: tuple[int, int] | None = None) -> memoryview:
        buffer = memoryview(bytearray(count))
        done = 0
        while done < count:
            got = os.preadv(self._file.fileno(), [buffer[done:]], offset + done)
            if got == 0:
                raise FormatError(f"{self.where} became shorter while it was being read")
            done += got
        return buffer

    def close(self) -> None:
        self._file.close()


def _open(path: Path) -> IO[bytes]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FormatError(f"{path} is not a file of bytes, but a folder, a pipe or a device")
        return os.fdopen(fd, "rb", buffering=0)
    except BaseException:
        os.close(fd)
        raise
