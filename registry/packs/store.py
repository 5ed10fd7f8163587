"""Packs: immutable files under `packs/aa/<id>`, each written once, whole, and read-only from then on.

A pack appears under its id only after its bytes are on the platter, and leaves through the quarantine,
never directly. What damages one is put right by writing it again: a file that is not whole is set aside.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from pv.registry import ids
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.errors import CorruptPack, NotFoundError
from pv.registry.packs import packfile

__all__ = ["DAMAGED", "PackStore", "PackWriter"]

DAMAGED = ".damaged"


class PackWriter:
    """A temporary file to fill, through `file` (or `write`) or by opening `path`; then `commit(id)`."""

    def __init__(self, store: PackStore) -> None:
        self._store = store
        self.path = store.tmp / durable.tmp_name("pack")
        with durable.storage_errors(self.path):
            self.file: IO[bytes] = self.path.open("x+b")
        fcntl.flock(self.file.fileno(), fcntl.LOCK_EX)  # held while we live: a sweep leaves the file alone
        self.committed: str | None = None

    def write(self, data: bytes | memoryview) -> None:
        with durable.storage_errors(self.path):
            self.file.write(data)
        durable.step("write pack")

    def commit(self, pack_id: str) -> Path:
        """Make the file durable under `pack_id`. A whole pack that is already there is kept as it is.

        The writers' lock is held for the moment in which the name appears, and not while bytes are read or
        synced; from then on the pack is held, if the store is `holding_written`.
        """
        target = self._store.path(pack_id)
        with durable.storage_errors(target):
            self.file.flush()
            durable.fsync_file(self.file.fileno())
            known = target.is_file() and packfile.is_whole(target, pack_id)
            with self._store.writing():
                if known and target.is_file():  # gc may have come between
                    os.utime(target)  # as new: gc's grace period begins again
                    # Its writer may have died between rename and sync: what we build on must be durable.
                    durable.fsync_dir(target.parent)
                    durable.fsync_dir(self._store.packs)
                else:
                    self._store.put(self.path, pack_id)
                    fcntl.flock(self.file.fileno(), fcntl.LOCK_SH)  # whoever holds the pack shares it
                self._store.hold(pack_id)
        self.committed = pack_id
        return target


class PackStore:
    """The packs of one registry. `root` is its `.pv` folder; inside `writing()` no gc is at work."""

    def __init__(
        self, root: Path, *, writing: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext
    ) -> None:
        self.packs = root / "packs"
        self.tmp = root / "tmp"
        self.quarantine = root / "quarantine"
        self.writing = writing
        self._thread = threading.local()

    def path(self, pack_id: str) -> Path:
        """Where the pack lies, or would lie. Raises FormatError for anything but an id."""
        ids.check_id(pack_id, "pack id")
        return self.packs / pack_id[:2] / pack_id

    def has(self, pack_id: str) -> bool:
        return self.path(pack_id).is_file()

    def is_whole(self, pack_id: str) -> bool:
        """True if the pack is there, byte for byte as it was written. Reads all of it."""
        return self.has(pack_id) and packfile.is_whole(self.path(pack_id), pack_id)

    def open_path(self, pack_id: str) -> Path:
        """The path of a pack that is there. Raises NotFoundError."""
        path = self.path(pack_id)
        if not path.is_file():
            raise NotFoundError(
                f"pack {pack_id[:12]} is not in this registry",
                hint="`pv fsck` says what is affected, `pv fsck --repair` what can be brought back",
            )
        return path

    def size(self, pack_id: str) -> int:
        """Bytes on disk. Raises NotFoundError."""
        return self.open_path(pack_id).stat().st_size

    def ids(self) -> Iterator[str]:
        """Every id that is stored, sorted. Raises CorruptPack for a file that does not belong."""
        for folder in sorted(self.packs.iterdir()):
            for path in sorted(folder.iterdir()) if folder.is_dir() else [folder]:
                if not ids.is_id(path.name) or path.name[:2] != folder.name:
                    raise CorruptPack(f"{path} is not a pack", hint="move it out of the registry")
                yield path.name

    def files(self) -> Iterator[Path]:
        """The file of every pack, sorted by id. Files that do not belong are passed over."""
        for folder in sorted(self.packs.iterdir()) if self.packs.is_dir() else []:
            for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else []:
                if ids.is_id(path.name) and path.name[:2] == folder.name and not path.is_symlink():
                    yield path

    @contextlib.contextmanager
    def writer(self, pack_id: str | None = None) -> Iterator[PackWriter]:
        """A new pack. Given `pack_id`, it is committed under it when the block ends without an error.

        Whatever was not committed is removed. A full or read-only disk raises StorageError.
        """
        if pack_id is not None:
            ids.check_id(pack_id, "pack id")
        durable.make_dirs(self.tmp)
        pack = PackWriter(self)
        try:
            with durable.storage_errors(pack.path):
                yield pack
            if pack_id is not None and pack.committed is None:
                pack.commit(pack_id)
        finally:
            with contextlib.suppress(OSError):  # closing flushes: a full disk has been reported already
                pack.file.close()
            pack.path.unlink(missing_ok=True)

    def put(self, source: Path, pack_id: str) -> Path:
        """Give a whole and durable file the name of a pack. What lies there is set aside."""
        target = self.path(pack_id)
        durable.make_dirs(target.parent)
        if target.exists():
            self.set_aside(target)
        source.chmod(0o444)
        durable.rename(source, target)
        return target

    def set_aside(self, path: Path) -> Path:
        """A second name for a damaged file, in the quarantine; the caller replaces or removes the first."""
        durable.make_dirs(self.quarantine)
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        aside = self.quarantine / f"{path.name}.{stamp}{DAMAGED}"
        with durable.storage_errors(aside):
            try:
                aside.hardlink_to(path)
            except OSError:  # a file system without links, or no file at all but a folder
                (shutil.copytree if path.is_dir() else shutil.copy2)(path, aside)
            with contextlib.suppress(OSError):
                os.utime(aside)
            durable.step(f"link {aside.name}")
            durable.fsync_dir(self.quarantine)
        return aside

    @contextlib.contextmanager
    def holding_written(self) -> Iterator[None]:
        """Keep gc away from every pack that is written in the block, until the block ends.

        So work that takes long needs no lock: what it writes is safe until a commit names it.
        """
        outer = getattr(self._thread, "held", None)
        with contextlib.ExitStack() as held:
            self._thread.held = held
            try:
                yield
            finally:
                self._thread.held = outer

    def hold(self, pack_id: str) -> None:
        """Keep gc away from one pack for as long as this thread's `holding_written` runs, if it does."""
        held: contextlib.ExitStack | None = getattr(self._thread, "held", None)
        if held is not None:
            held.enter_context(self.holding(pack_id))

    @contextlib.contextmanager
    def holding(self, pack_id: str) -> Iterator[Path]:
        """Keep gc away from one pack while something long is done with it. Raises NotFoundError."""
        with self.open_path(pack_id).open("rb") as file:
            locks.share(file.fileno())
            yield self.open_path(pack_id)

    def in_use(self, pack_id: str) -> bool:
        """True if a process that is still running holds the pack."""
        with self.open_path(pack_id).open("rb") as file:
            return locks.held_elsewhere(file.fileno())

    @contextlib.contextmanager
    def scratch(self, name: str) -> Iterator[Path]:
        """A folder for temporary files, gone at the end; if the process is killed, a sweep removes it."""
        folder = self.tmp / durable.tmp_name(name)
        try:
            durable.make_dirs(folder)
            with locks.shared(folder / "lock"):
                yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def remove(self, pack_id: str) -> Path:
        """Move a pack into the quarantine, from where `restore` brings it back. Raises NotFoundError."""
        source = self.open_path(pack_id)
        durable.make_dirs(self.quarantine)
        target = self.quarantine / pack_id
        with durable.storage_errors(source):
            os.utime(source)  # the grace period counts from now
        durable.rename(source, target)
        return target

    def restore(self, pack_id: str) -> Path:
        """Bring a pack back from the quarantine. Raises NotFoundError."""
        source = self.quarantine / ids.check_id(pack_id, "pack id")
        if not source.is_file():
            raise NotFoundError(f"pack {pack_id[:12]} is not in quarantine")
        target = self.path(pack_id)
        durable.make_dirs(target.parent)
        durable.rename(source, target)
        return target

    def quarantined(self) -> dict[str, float]:
        """What is in quarantine: packs, by id, and damaged files; since when (seconds since 1970)."""
        if not self.quarantine.is_dir():
            return {}
        return {
            path.name: path.stat().st_mtime
            for path in sorted(self.quarantine.iterdir())
            if ids.is_id(path.name) or path.name.endswith(DAMAGED)
        }

    def leftovers(self, min_age_s: float = 60.0) -> list[Path]:
        """Temporary files whose writer is dead: its lock on the file is free, and was not just being taken."""
        return list(tempfiles.find(self.tmp, min_age_s))

    def sweep(self, min_age_s: float = 60.0) -> list[Path]:
        """Delete the leftovers; returns what was deleted."""
        found = self.leftovers(min_age_s)
        for path in found:
            tempfiles.delete(path)
        return found
