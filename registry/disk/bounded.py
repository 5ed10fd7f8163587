"""Files that may be anybody's: read only if they are files, and no further than they may be long."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from pv.registry.canonical import MAX_BYTES
from pv.registry.errors import FormatError

__all__ = ["read_bounded"]


def read_bounded(path: Path, most: int = MAX_BYTES) -> bytes:
    """The bytes of a regular file. Raises OSError, and FormatError if it is none or longer than `most`."""
    fd = os.open(
        path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    )  # a pipe nobody writes to would wait for ever
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise FormatError(f"{path} is not a regular file")
        with open(fd, "rb", closefd=False) as file:
            data = file.read(most + 1)
    finally:
        os.close(fd)
    if len(data) > most:
        raise FormatError(f"{path} is longer than {most} bytes")
    return data
