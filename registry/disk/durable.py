"""Files that are either whole or absent: written aside, synced, renamed, and their folder synced.

Invariant: when `write_file` or `rename` has returned, the new name and its bytes survive power loss, and
at no instant before does the final name show anything but the old bytes or the new ones. Temporary files
end in `.pvtmp`, so that what a killed process left behind can be recognised and swept.

`fault` is a hook: it is called with a label after every write, sync and rename, so that a test can stop
the process at each of them in turn.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

from pv.registry.errors import StorageError

__all__ = [
    "REFUSALS",
    "TMP_SUFFIX",
    "fault",
    "fsync_dir",
    "fsync_file",
    "make_dirs",
    "rename",
    "step",
    "storage_errors",
    "tmp_name",
    "write_file",
]

TMP_SUFFIX = ".pvtmp"

fault: Callable[[str], None] | None = None

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space and run the command again",
    errno.EFBIG: "the file is larger than this system allows (see `ulimit -f`)",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "check the permissions of the folder and who owns it",
    errno.EPERM: "check the permissions of the folder and who owns it",
    errno.EIO: "the disk reports an error: check it before writing anything more",
}
REFUSALS = frozenset(_HINTS)
"""What `storage_errors` takes for a refusal."""


def step(label: str) -> None:
    """Tell the fault hook that one durable step has just happened."""
    if fault is not None:
        fault(label)


@contextlib.contextmanager
def storage_errors(what: str | Path) -> Iterator[None]:
    """Turn a refusal by the file system into a StorageError with a hint; other errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno not in _HINTS:
            raise
        reason = os.strerror(error.errno)
        raise StorageError(f"cannot write {what}: {reason}", hint=_HINTS[error.errno]) from error


def tmp_name(name: str) -> str:
    """A fresh name for the temporary form of `name`: process id, random digits, `.pvtmp`."""
    return f"{name[:64]}.{os.getpid()}.{secrets.token_hex(8)}{TMP_SUFFIX}"


def fsync_file(fd: int) -> None:
    """Push a file's bytes to the platter, through the drive's own cache where the system can."""
    full = getattr(fcntl, "F_FULLFSYNC", None)  # macOS: fsync alone stops at the drive's cache
    if full is None:
        os.fsync(fd)
    else:
        try:
            fcntl.fcntl(fd, full)
        except OSError:
            os.fsync(fd)  # some network file systems know only this
    step("fsync file")


def fsync_dir(path: Path) -> None:
    """Make the names inside a folder durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems without folder sync
            raise
    finally:
        os.close(fd)
    step(f"fsync dir {path.name}")


def make_dirs(path: Path) -> None:
    """`path` with its missing parents, each made durable in the folder above it."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    with storage_errors(path):
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            step(f"mkdir {folder.name}")
            fsync_dir(folder.parent)


def rename(source: Path, target: Path) -> None:
    """Rename, replacing what is there, and sync the folder (both folders, if they differ)."""
    with storage_errors(target):
        source.rename(target)
        step(f"rename {target.name}")
        fsync_dir(target.parent)
        if source.parent != target.parent:
            fsync_dir(source.parent)


def write_file(path: Path, data: bytes, *, replace: bool = True, mode: int = 0o666) -> None:
    """Put `data` under `path`, whole and durable, or leave what was there.

    With `replace=False` an existing file is kept and FileExistsError raised. Raises StorageError.
    """
    tmp = path.with_name(tmp_name(path.name))
    with storage_errors(path):
        fd = os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)  # held while we live: a sweep leaves the file alone
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            step(f"write {path.name}")
            fsync_file(fd)
            if replace:
                rename(tmp, path)
            else:
                path.hardlink_to(tmp)  # unlike a rename, a link never replaces
                step(f"link {path.name}")
                fsync_dir(path.parent)
                tmp.unlink()
        except BaseException:
            tmp.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
