"""Work that is not finished, in a hidden folder beside where it is to be; what a process left there is gone on with.

    .<name>.<plan>.pvtmp/lock       held alone by who is at work
    .<name>.<plan>.pvtmp/journal    which tensors are written
    .<name>.<plan>.pvtmp/new/       what is to be <name>
    .<name>.<plan>.pvtmp/old/       what was <name>, for the moment in which one takes the other's place

<plan> is the first digits of the id of what is made (`shards.plan_id`): the next process that makes the same goes on
with it. Where another is at work on that, or nothing is to go on with, a folder with random digits does; those are
never gone on with. A folder that nobody holds is swept by whoever makes another thing of that name.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from pv.registry.disk import durable, locks, tempfiles
from pv.vecstore.merge.journal import Journal

__all__ = ["Unfinished", "sweep", "unfinished"]

_NEW, _OLD, _LOCK, _JOURNAL = "new", "old", "lock", "journal"
_TRIES = 100


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A folder that is ours while the block runs. Without a `journal` its work is not to be gone on with."""

    path: Path
    journal: Journal | None

    @property
    def new(self) -> Path:
        return self.path / _NEW

    def swap(self, out: Path, new: Path | None = None) -> None:
        """Two renames, since no system has one for it: the first is undone if the second fails. Raises OSError."""
        if out.exists():
            out.rename(self.path / _OLD)
            durable.step("old aside")
        (new or self.new).rename(out)
        durable.step("new in place")


@contextmanager
def unfinished(out: Path, plan: str | None) -> Iterator[Unfinished]:
    """A folder to work in. It goes when the block ends, unless that was interrupted and something in it is finished.

    Raises OSError where it cannot be made.
    """
    with ExitStack() as held:
        path = None if plan is None else _path(out, plan)
        if path is None or not _claim(path, held):
            path = out.with_name(durable.tmp_name(_hidden(out)))
            path.mkdir(parents=True)
            held.enter_context(locks.shared(path / _LOCK))  # tells a sweep that we are alive
            plan = None
        _put_back(path, out)
        keep = False
        try:
            (path / _NEW).mkdir(exist_ok=True)
            journal = None if plan is None else held.enter_context(Journal(path / _JOURNAL, plan))
            try:
                yield Unfinished(path, journal)
            except BaseException as error:
                keep = journal is not None and bool(journal.here) and not isinstance(error, Exception)
                raise
        finally:
            _put_back(path, out)
            if not keep and plan is not None:
                _delete(path)
            elif not keep:
                tempfiles.delete(path)


def sweep(out: Path, keep: str | None) -> None:
    """Delete what nobody works on, but for the work of the plan `keep`. What a killed process set aside comes back."""
    for name, is_plan in _beside(out):
        path = out.parent / name
        if is_plan:
            with ExitStack() as held, contextlib.suppress(OSError):
                if _claim(path, held, make=False):
                    _put_back(path, out)
                    if keep is None or path != _path(out, keep):
                        _delete(path)
    dead = {path.name for path in tempfiles.beside(out.with_name(_hidden(out)))}
    for name, is_plan in _beside(out):
        if not is_plan and name in dead:
            _put_back(out.parent / name, out)
            tempfiles.delete(out.parent / name)


def _hidden(out: Path) -> str:
    """Of a name that is too long for its folder's, digits of its own: no two must share one."""
    name = out.name
    return f".{name}" if len(name) <= 60 else f".{name[:47]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _path(out: Path, plan: str) -> Path:
    return out.with_name(f"{_hidden(out)}.{plan[:16]}{durable.TMP_SUFFIX}")


def _beside(out: Path) -> list[tuple[str, bool]]:
    """(name, whether it is a plan's) of the folders that are of `out`, and not of another that begins as it does."""
    form = re.compile(re.escape(_hidden(out)) + r"\.(\d+\.)?[0-9a-f]{16}" + re.escape(durable.TMP_SUFFIX))
    try:
        names = sorted(entry.name for entry in os.scandir(out.parent))
    except OSError:
        return []
    return [(name, found[1] is None) for name in names if (found := form.fullmatch(name))]


def _claim(path: Path, held: ExitStack, *, make: bool = True) -> bool:
    """Have a folder for ourselves as long as `held` lives; False if another process has it, or locks are refused."""
    for _ in range(_TRIES):
        if make:
            path.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            return False
        lock = path / _LOCK
        try:
            fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:  # it has just been swept
            if make:
                continue
            return False
        with ExitStack() as ours:
            ours.callback(os.close, fd)
            try:
                if locks.held_elsewhere(fd):
                    return False
            except OSError:  # a file system without locks
                return False
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(fd), lock.stat()):
                    held.push(ours.pop_all())
                    return True
    return False


def _delete(path: Path) -> None:
    """By way of another name: who comes meanwhile makes a folder of its own."""
    aside = path.with_name(durable.tmp_name(path.name.rsplit(".", 2)[0]))
    with contextlib.suppress(OSError):
        path.rename(aside)
        path = aside
    tempfiles.delete(path)


def _put_back(path: Path, out: Path) -> None:
    old = path / _OLD
    if old.is_dir():
        with contextlib.suppress(OSError):  # another one may have come in its place
            old.rename(out)
        if old.is_dir() and out.exists():
            tempfiles.delete(old)
