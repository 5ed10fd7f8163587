"""Locks between processes: `flock` on a file that is never removed.

The kernel frees such a lock when the last descriptor closes, so a killed process leaves none behind. A
descriptor handed on to a child process keeps the lock for as long as that child lives.

`writer` and `alone` are the two ways into a registry. Sharers that overlap without end would keep out
whoever wants to be alone; so each passes a gate, which that one holds shut while it waits.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from pv.registry.disk.durable import storage_errors
from pv.registry.errors import StorageError

__all__ = ["alone", "exclusive", "held_elsewhere", "share", "shared", "writer"]

WAIT_S = 600.0


@contextlib.contextmanager
def shared(path: Path, timeout_s: float = WAIT_S) -> Iterator[int]:
    """Hold `path` together with other sharers. Yields the descriptor. Raises StorageError on timeout."""
    with _locked(path, fcntl.LOCK_SH, timeout_s) as fd:
        yield fd


@contextlib.contextmanager
def exclusive(path: Path, timeout_s: float = 120.0) -> Iterator[int]:
    """Hold `path` alone. Yields the descriptor. Raises StorageError on timeout."""
    with _locked(path, fcntl.LOCK_EX, timeout_s) as fd:
        yield fd


@contextlib.contextmanager
def writer(root: Path, timeout_s: float = WAIT_S) -> Iterator[None]:
    """Write to the registry `root`, beside other writers. Not reentrant. Raises StorageError on timeout."""
    with contextlib.ExitStack() as held:
        with shared(root / "gate", timeout_s):
            held.enter_context(shared(root / "lock", timeout_s))
        yield


@contextlib.contextmanager
def alone(root: Path, timeout_s: float = WAIT_S) -> Iterator[None]:
    """Have the registry `root` for oneself: nobody writes. Raises StorageError on timeout."""
    with exclusive(root / "gate", timeout_s), exclusive(root / "lock", timeout_s):
        yield


def share(fd: int) -> None:
    """Hold an open file together with other sharers, until `fd` is closed."""
    fcntl.flock(fd, fcntl.LOCK_SH)


def held_elsewhere(fd: int) -> bool:
    """True if another open file holds a lock on this file; otherwise takes it for `fd`."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


@contextlib.contextmanager
def _locked(path: Path, kind: int, timeout_s: float) -> Iterator[int]:
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        _acquire(fd, kind, timeout_s, path)
        yield fd
    finally:
        os.close(fd)  # and with it the lock, unless a child still has the descriptor


def _acquire(fd: int, kind: int, timeout_s: float, path: Path) -> None:
    deadline = time.monotonic() + timeout_s
    pause = 0.001
    while True:
        try:
            fcntl.flock(fd, kind | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            pass
        if time.monotonic() >= deadline:
            raise StorageError(
                f"another pv process has held {path.name} for {timeout_s:g} s",
                hint=f"wait for it to end, or see who it is with: fuser {path}",
            )
        time.sleep(pause)
        pause = min(pause * 1.5, 0.02)
