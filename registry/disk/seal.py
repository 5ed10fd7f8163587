"""What a folder's files are like, without reading them: a file that still is so has not been written since."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

__all__ = ["Seal", "seal"]

Seal = Mapping[str, list[str]]
"""{file: mode, size, times of its bytes and of its inode, inode}: texts, since JSON's numbers end at 2^53."""


def seal(folder: Path) -> dict[str, list[str]]:
    """Links are not followed. Raises OSError."""
    found = {}
    for file in sorted(folder.iterdir()):
        stat = file.lstat()
        numbers = (stat.st_mode, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)
        found[file.name] = [str(number) for number in numbers]
    return found
