"""Packs: immutable files under `packs/aa/<id>`, each written once, whole, and read-only from then on.

The store knows names and bytes; what is inside belongs to the room above. A pack appears under its id
only after its bytes are on the platter, and leaves through the quarantine, never directly.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pv.registry import durable, ids, locks
from pv.registry.errors import CorruptPack, NotFoundError, PvError

__all__ = ["PackStore", "PackWriter"]


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
        """Make the file durable under `pack_id`. A pack that is already there is kept as it is."""
        target = self._store.path(pack_id)
        with durable.storage_errors(target):
            self.file.flush()
            durable.fsync_file(self.file.fileno())
            if target.is_file():
                # Its writer may have died between rename and sync: what we build on must be durable.
                durable.fsync_dir(target.parent)
                durable.fsync_dir(self._store.packs)
            else:
                durable.make_dirs(target.parent)
                self.path.chmod(0o444)
                durable.rename(self.path, target)
        self.committed = pack_id
        return target


class PackStore:
    """The packs of one registry. `root` is its `.pv` folder."""

    def __init__(self, root: Path) -> None:
        self.packs = root / "packs"
        self.tmp = root / "tmp"
        self.quarantine = root / "quarantine"

    def path(self, pack_id: str) -> Path:
        """Where the pack lies, or would lie. Raises FormatError for anything but an id."""
        ids.check_id(pack_id, "pack id")
        return self.packs / pack_id[:2] / pack_id

    def has(self, pack_id: str) -> bool:
        return self.path(pack_id).is_file()

    def open_path(self, pack_id: str) -> Path:
        """The path of a pack that is there. Raises NotFoundError."""
        path = self.path(pack_id)
        if not path.is_file():
            raise NotFoundError(
                f"pack {pack_id[:12]} is not in this registry",
                hint="fetch it with `pv pull`, or see what else is affected with `pv fsck`",
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
        """Ids in quarantine, each with the time (seconds since 1970) when it went there."""
        if not self.quarantine.is_dir():
            return {}
        return {p.name: p.stat().st_mtime for p in sorted(self.quarantine.iterdir()) if ids.is_id(p.name)}

    def purge(self, older_than_s: float) -> list[str]:
        """Delete what has been in quarantine for longer; returns the ids. Hold the registry alone."""
        limit = time.time() - older_than_s
        gone = [pack_id for pack_id, since in self.quarantined().items() if since <= limit]
        for pack_id in gone:
            (self.quarantine / pack_id).unlink()
            durable.step("unlink pack")
        if gone:
            durable.fsync_dir(self.quarantine)
        return gone

    def leftovers(self, min_age_s: float = 60.0) -> list[Path]:
        """Temporary files whose writer is dead: its lock on the file is free, and was not just being taken."""
        if not self.tmp.is_dir():
            return []
        found = (path for path in sorted(self.tmp.iterdir()) if path.name.endswith(durable.TMP_SUFFIX))
        return [path for path in found if _orphan(path, min_age_s)]

    def sweep(self, min_age_s: float = 60.0) -> list[Path]:
        """Delete the leftovers; returns what was deleted."""
        found = self.leftovers(min_age_s)
        for path in found:
            path.unlink(missing_ok=True)
        return found


def _orphan(path: Path, min_age_s: float) -> bool:
    try:
        with path.open("rb") as file:
            if time.time() - os.fstat(file.fileno()).st_mtime < min_age_s:
                return False
            return not locks.held_elsewhere(file.fileno())
    except FileNotFoundError:
        return False
    except OSError as error:
        raise PvError(f"cannot look at {path}: {error}") from error
