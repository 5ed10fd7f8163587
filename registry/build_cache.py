"""Builds that are kept for the next command that needs one: `.pv/cache/<build id>/`. All of it can be made again.

    <build id>/lock         held, shared, by whoever uses or makes the build; alone by whoever takes it out
    <build id>/build.json   the build, its weights' id, and each file's size, times and inode
    <build id>/checkpoint/  the checkpoint

A build is made in a temporary folder of this form and appears by one rename. Invariant: what is handed out is a
build whose every file is, by size, times and inode, the file that was written here; any other is taken out, and
made again. So a copied registry brings no builds along, and nobody's bytes are taken for ours. The order of use, by
which builds are taken out, is that of the seals' (build.json) times of modification, which `using` sets.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pv.registry import canonical, ids
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.disk.bounded import read_bounded
from pv.registry.disk.seal import seal
from pv.registry.errors import FormatError, StorageError

__all__ = ["BUILDS", "BYTES", "BuildCache", "Kept", "Making"]

BYTES = 4_000_000_000
"""How much is kept, unless told otherwise: older builds go first, and a larger one is not kept at all."""
BUILDS = 4
"""No more than so many, however small they are."""
SCHEMA = 1
_LOCK, _SEAL, _CHECKPOINT = "lock", "build.json", "checkpoint"


@dataclass(frozen=True, slots=True)
class Kept:
    """A build that is kept: when it was used last (seconds since 1970), and whether a process uses it now."""

    build: str
    nbytes: int
    used: float
    in_use: bool


class Making:
    """A checkpoint that is being written into `folder`; `keep` puts it into the cache."""

    def __init__(self, cache: BuildCache, build_id: str, entry: Path) -> None:
        self._cache, self._build, self._entry = cache, build_id, entry

    @property
    def folder(self) -> Path:
        """Where the checkpoint is to be, and is: `keep` moves it."""
        return self._entry / _CHECKPOINT

    def keep(self, weights: str) -> bool:
        """Let later commands have it too, if there is room. No trouble in doing so is anybody's trouble."""
        target = self._cache.path(self._build)
        with contextlib.suppress(OSError, StorageError):
            self._cache.put(self._build, weights, self._entry)
        if self._entry.exists():
            return False
        self._entry = target  # moved, whatever failed after that
        with contextlib.suppress(OSError, StorageError):
            self._cache.trim()
        return True


class BuildCache:
    """The kept builds of one registry. `root` is its `.pv` folder; `limit` is in bytes, 0 keeps none."""

    def __init__(self, root: Path, limit: int = BYTES) -> None:
        self.folder = root / "cache"
        self.limit = limit
        self._tmp = root / "tmp"

    def path(self, build_id: str) -> Path:
        return self.folder / ids.check_id(build_id, "build id")

    def checkpoint(self, build_id: str) -> Path:
        """Where its checkpoint is, if it is kept: not to be read but within `using`, or to be checked."""
        return self.path(build_id).resolve() / _CHECKPOINT

    @contextlib.contextmanager
    def using(self, build_id: str) -> Iterator[Path | None]:
        """The build's checkpoint, which nobody takes out while the block runs; None if it is not kept."""
        with ExitStack() as held:
            entry = self.path(build_id)
            try:
                sound = self._is_own() and _hold(held, entry) and _is_as_sealed(entry, build_id)
            except OSError:
                sound = False
            if not sound:
                held.close()
                with contextlib.suppress(OSError, StorageError):
                    self._take_out(entry)
                yield None
                return
            with contextlib.suppress(OSError):  # a registry that may only be read
                os.utime(entry / _SEAL)
            yield entry / _CHECKPOINT

    @contextlib.contextmanager
    def making(self, build_id: str) -> Iterator[Making]:
        """A place to write a build to. Gone at the end, unless it is kept."""
        entry = self._tmp / durable.tmp_name("build")
        durable.make_dirs(entry)
        try:
            with locks.shared(entry / _LOCK):
                yield Making(self, build_id, entry)
        finally:
            shutil.rmtree(entry, ignore_errors=True)

    def put(self, build_id: str, weights: str, entry: Path) -> None:
        """Seal what was made and move it to its place, if there is room. The caller holds its lock.

        Raises OSError, StorageError.
        """
        target = self.path(build_id)
        files = sorted((entry / _CHECKPOINT).iterdir())
        nbytes = sum(file.stat().st_size for file in files)
        if (
            not self._is_own()
            or nbytes > self.limit
            or nbytes > shutil.disk_usage(entry).free
            or target.exists()
        ):
            return
        for file in files:
            with file.open("rb") as opened:
                durable.fsync_file(opened.fileno())
        sealed = {"schema": SCHEMA, "build": build_id, "weights": weights, "files": seal(entry / _CHECKPOINT)}
        durable.write_file(entry / _SEAL, canonical.dumps(sealed) + b"\n")
        durable.make_dirs(self.folder)
        durable.rename(entry, target)

    def kept(self) -> list[Kept]:
        """What is kept, the last used first. Folders that are no kept build are passed over."""
        found = []
        for entry in sorted(self.folder.iterdir()) if self._is_own() and self.folder.is_dir() else []:
            with contextlib.suppress(OSError):
                if ids.is_id(entry.name):
                    nbytes = sum(file.stat().st_size for file in _files(entry))
                    with (entry / _LOCK).open("rb") as lock:
                        in_use = locks.held_elsewhere(lock.fileno())
                    found.append(Kept(entry.name, nbytes, (entry / _SEAL).stat().st_mtime, in_use))
        return sorted(found, key=lambda kept: -kept.used)

    def trim(self) -> None:
        """Take out what was not used for longest, until the rest is within the limits. What is in use stays."""
        nbytes = 0
        for number, kept in enumerate(self.kept(), start=1):
            nbytes += kept.nbytes
            if number > BUILDS or nbytes > self.limit:
                self.take_out(kept.build)

    def clear(self) -> int:
        """Take out whatever nobody uses; returns how many bytes that were."""
        return sum(kept.nbytes for kept in self.kept() if self.take_out(kept.build))

    def take_out(self, build_id: str) -> bool:
        """Take out one build; False if it is in use, or not there."""
        with contextlib.suppress(OSError, StorageError):
            return self._take_out(self.path(build_id))
        return False

    def _is_own(self) -> bool:
        """Not so where a link leads to another's folder."""
        return not self.folder.is_symlink()

    def _take_out(self, entry: Path) -> bool:
        """By way of a temporary name: who meets the build in its place meets all of it."""
        if not self._is_own() or entry.is_symlink() or not entry.is_dir():
            return False
        aside = self._tmp / durable.tmp_name("build")
        lock = entry / _LOCK
        with lock.open("rb") if lock.is_file() else contextlib.nullcontext() as opened:
            if opened is not None and locks.held_elsewhere(opened.fileno()):
                return False
            durable.make_dirs(self._tmp)
            durable.rename(entry, aside)
        tempfiles.delete(aside)
        return True


def _hold(held: ExitStack, entry: Path) -> bool:
    """Hold an entry, if it is there and still is once we have its lock."""
    path = entry / _LOCK
    if not path.is_file():
        return False
    lock = held.enter_context(path.open("rb"))
    locks.share(lock.fileno())
    return path.is_file() and os.path.samestat(os.fstat(lock.fileno()), path.stat())


def _files(entry: Path) -> Iterator[Path]:
    """The files of a checkpoint. What lies deeper is nothing that we wrote."""
    folder = entry / _CHECKPOINT
    for file in sorted(folder.iterdir()) if not (entry.is_symlink() or folder.is_symlink()) else []:
        if file.is_file():
            yield file


def _is_as_sealed(entry: Path, build_id: str) -> bool:
    try:
        sealed = canonical.loads(read_bounded(entry / _SEAL))
    except FormatError:
        return False
    match sealed:
        case {"schema": 1, "build": str(build), "files": dict(files)}:
            return build == build_id and bool(files) and files == seal(entry / _CHECKPOINT)
    return False
