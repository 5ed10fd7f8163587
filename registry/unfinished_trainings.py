"""Trainings that were stopped: `.pv/trainings/<32 digits>/state.safetensors`, one of a behaviour on a branch.

The digits are the first of SHA-256 over branch and name. Who trains holds `lock` in the folder alone, and another
process that trains the same meanwhile keeps nothing. A state goes when its behaviour is committed, and with a gc, when
it is older than the grace period and nobody holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pv.registry import canonical
from pv.registry.disk import durable, locks, tempfiles

__all__ = ["STATE", "UnfinishedTrainings"]

STATE = "state.safetensors"
_LOCK = "lock"


class UnfinishedTrainings:
    """Those of one registry. `root` is its `.pv` folder."""

    def __init__(self, root: Path) -> None:
        self.folder = root / "trainings"

    def path(self, branch: str, name: str) -> Path:
        """The folder of a training, which may not be there."""
        return self.folder / hashlib.sha256(canonical.dumps([branch, name])).hexdigest()[:32]

    @contextmanager
    def held(self, branch: str, name: str) -> Iterator[Path | None]:
        """Where its state is, ours alone while the block runs; None if another process trains it now."""
        path = self.path(branch, name)
        durable.make_dirs(path)
        with durable.storage_errors(path):
            fd = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            if locks.held_elsewhere(fd) or not _is(fd, path / _LOCK):
                yield None
                return
            for left in path.glob(f"*{durable.TMP_SUFFIX}"):  # of a process that was killed while it saved
                tempfiles.delete(left)
            try:
                yield path / STATE
            finally:
                if not (path / STATE).exists():
                    tempfiles.delete(path)
        finally:
            os.close(fd)

    def take_out(self, name: str) -> None:
        """Delete a training's folder, by the folder's name, unless somebody has begun to work on it."""
        for path, _, _ in self.kept():
            if path.name == name:
                aside = self.folder / durable.tmp_name(name)  # who comes meanwhile makes a folder of its own
                path.rename(aside)
                tempfiles.delete(aside)

    def kept(self) -> list[tuple[Path, int, float]]:
        """(folder, bytes, when it was last saved) of each that nobody works on."""
        found = []
        for path in sorted(self.folder.glob("*")):
            if path.name.endswith(durable.TMP_SUFFIX):
                continue
            with contextlib.suppress(OSError):
                fd = os.open(path / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
                try:
                    if locks.held_elsewhere(fd):
                        continue
                finally:
                    os.close(fd)
                stats = [file.lstat() for file in path.iterdir() if file.name != _LOCK]
                latest = max((stat.st_mtime for stat in stats), default=path.lstat().st_mtime)
                found.append((path, sum(stat.st_size for stat in stats), latest))
        return found


def _is(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False
