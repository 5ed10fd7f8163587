"""gc: take out what nothing needs any more.

Kept is what any ref leads to (branches, tags, remote branches), what an operation that has not expired
could bring back, what a process that is still running holds, and whatever is younger than the grace period.
Builds that were kept can be made again: all go but those in use. A training that was stopped goes when it is older than
the grace period.

With the registry to itself, in this order, each step durable before the next: expire old operations;
delete what has lain in quarantine for longer than the grace period; move packs that nothing names into the
quarantine; delete git objects that nothing leads to, those that lead to others first; sweep leftovers.
So a pack is deleted at the earliest by the second gc that finds it unneeded. Invariant: where any commit
cannot be read in full, nothing is touched, since what it needs is not known.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pv.registry.check import fsck, refstate
from pv.registry.check.reachability import Reachable, reachable
from pv.registry.disk import durable, locks, tempfiles
from pv.registry.errors import IntegrityError, PvError
from pv.registry.git import loose
from pv.registry.git.repository import GitRepository
from pv.registry.history import operations
from pv.registry.history.operations import Operation
from pv.registry.packs import packfile
from pv.registry.packs.store import PackStore
from pv.registry.registry import Registry

__all__ = ["EXPIRE_S", "GRACE_S", "Garbage", "Plan", "collect", "plan"]

DAY = 86400.0
GRACE_S = 14 * DAY
EXPIRE_S = 30 * DAY


@dataclass(frozen=True, slots=True)
class Garbage:
    """A file that goes: its name, its size, and for how many seconds nobody has wanted it."""

    name: str
    nbytes: int
    age_s: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a gc does. `restore` are packs in quarantine that a commit needs after all; `builds` go from the cache;
    `trainings` were stopped and not gone on with.

    `commits` and `objects` are ids of git objects, each before those that it leads to. `young` and
    `in_use` count packs that no commit needs, and that stay all the same.
    """

    expire: tuple[int, ...]
    restore: tuple[str, ...]
    purge: tuple[Garbage, ...]
    quarantine: tuple[Garbage, ...]
    commits: tuple[str, ...]
    objects: tuple[str, ...]
    leftovers: tuple[str, ...]
    young: int
    in_use: int
    builds: tuple[Garbage, ...] = ()
    trainings: tuple[Garbage, ...] = ()

    @property
    def empty(self) -> bool:
        return not any(
            (
                self.expire,
                self.restore,
                self.purge,
                self.quarantine,
                self.commits,
                self.objects,
                self.leftovers,
                self.builds,
                self.trainings,
            )
        )

    @property
    def freed(self) -> int:
        """Bytes of packs, builds and trainings that are deleted."""
        return sum(garbage.nbytes for garbage in (*self.purge, *self.builds, *self.trainings))


def plan(
    registry: Registry,
    *,
    grace_s: float = GRACE_S,
    expire_s: float = EXPIRE_S,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """What `collect` would do now. Takes no lock. Raises IntegrityError if the history is damaged.

    `progress` gets (commits read, commits known of).
    """
    before = datetime.now(UTC) - timedelta(seconds=expire_s)
    with fsck.reading(registry.root) as history:
        begin = refstate.read(history)
        for finding in refstate.check(begin):
            if finding.damage:
                raise _refusal(finding.what)
        keep = operations.kept(begin.operations, before)
        known = reachable(history, replace(begin, operations=tuple(keep)).tips, progress)
        for commit in known.commits.values():
            for trouble in commit.troubles:
                raise _refusal(f"commit {commit.id[:12]}: {trouble.what}")
        commits, others = _dead_objects(history, known, begin, keep)
    quarantine, young, in_use = _unneeded(registry.packs, known, grace_s)
    restore, purge = _quarantined(registry.packs, known, grace_s)
    swept = tempfiles.everywhere(registry.root)
    now = time.time()
    builds = [Garbage(k.build, k.nbytes, now - k.used) for k in registry.builds.kept() if not k.in_use]
    stopped = [Garbage(path.name, size, now - saved) for path, size, saved in registry.trainings.kept()]
    return Plan(
        expire=tuple(operation.seq for operation in begin.operations[len(keep) :]),
        restore=restore,
        purge=purge,
        quarantine=quarantine,
        commits=commits,
        objects=others,
        leftovers=tuple(tempfiles.place(registry.root, path) for path in swept),
        builds=tuple(builds),
        trainings=tuple(one for one in stopped if one.age_s >= grace_s),
        young=young,
        in_use=in_use,
    )


def collect(
    registry: Registry,
    *,
    grace_s: float = GRACE_S,
    expire_s: float = EXPIRE_S,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """Do it; returns what was done. Waits for writers to end.

    Raises IntegrityError if the history is damaged: then nothing has been done.
    """
    root, packs, history = registry.root, registry.packs, registry.history
    with locks.alone(root), locks.exclusive(root / "refs.lock") as lock:
        before = datetime.now(UTC) - timedelta(seconds=expire_s)
        operations.recover(history, lock)
        todo = plan(registry, grace_s=grace_s, expire_s=expire_s, progress=progress)
        if todo.expire:
            operations.expire(history, before, lock)
        alive = {operation.id for operation in operations.operations(history)}  # written by now
        for pack_id in todo.restore:
            packs.restore(pack_id)
        _delete([packs.quarantine / garbage.name for garbage in todo.purge])
        for garbage in todo.quarantine:
            packs.remove(garbage.name)
        for dead in (todo.commits, todo.objects):
            _delete([loose.object_path(history.path, i) for i in dead if i not in alive])
        _delete([tempfiles.at(root, name) for name in todo.leftovers])
        for garbage in todo.builds:
            registry.builds.take_out(garbage.name)
        for garbage in todo.trainings:
            registry.trainings.take_out(garbage.name)
    return todo


def _refusal(what: str) -> IntegrityError:
    return IntegrityError(
        f"gc touches nothing where something is damaged, since it cannot know what is needed: {what}",
        hint="`pv fsck` lists what is damaged, `pv fsck --repair` tries to mend it",
    )


def _dead_objects(
    history: GitRepository, known: Reachable, begin: refstate.RefState, keep: Sequence[Operation]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Commits, and other objects, that nothing leads to; each before those that it leads to itself.

    A user may still name a commit by its id, as long as it is there: so it goes before what it needs.
    """
    alive = set(known.objects)
    for operation in keep:
        commit = history.commit(operation.id)
        alive |= {commit.tree, *(entry.id for entry in history.tree(commit.tree).values())}
    if len(keep) == len(begin.operations):  # else the chain is written anew
        alive |= {operation.id for operation in keep}
    links: dict[str, tuple[str, list[str]]] = {}
    for object_id in loose.stored(history.path):
        if object_id not in alive:
            links[object_id] = _links(history, object_id)
    order = _outermost_first({object_id: leads for object_id, (_, leads) in links.items()})
    commits = tuple(object_id for object_id in order if links[object_id][0] == "commit")
    return commits, tuple(object_id for object_id in order if links[object_id][0] != "commit")


def _links(history: GitRepository, object_id: str) -> tuple[str, list[str]]:
    """(type, the objects that it leads to). A damaged one leads nowhere, and is fsck's business."""
    try:
        kind = history.kind(object_id)
        if kind == "commit":
            commit = history.commit(object_id)
            return kind, [commit.tree, *commit.parents]
        if kind == "tree":
            return kind, [entry.id for entry in history.tree(object_id).values()]
    except PvError as error:
        raise _refusal(str(error)) from error
    return kind or "blob", []


def _outermost_first(links: dict[str, list[str]]) -> list[str]:
    """The keys, each before every other that it leads to."""
    count = dict.fromkeys(links, 0)
    for leads in links.values():
        for other in leads:
            if other in count:
                count[other] += 1
    ready = deque(object_id for object_id, n in count.items() if n == 0)
    order: list[str] = []
    while ready:
        order.append(ready.popleft())
        for other in links[order[-1]]:
            if other in count:
                count[other] -= 1
                if count[other] == 0:
                    ready.append(other)
    return order


def _unneeded(packs: PackStore, known: Reachable, grace_s: float) -> tuple[tuple[Garbage, ...], int, int]:
    """Packs that no commit needs: those that go, and how many are too young, or in use."""
    found: list[Garbage] = []
    young = in_use = 0
    now = time.time()
    for path in packs.files():
        if path.name in known.uses:
            continue
        stat = path.stat()
        if now - stat.st_mtime < grace_s:
            young += 1
        elif packs.in_use(path.name):
            in_use += 1
        else:
            found.append(Garbage(path.name, stat.st_size, now - stat.st_mtime))
    return tuple(found), young, in_use


def _quarantined(
    packs: PackStore, known: Reachable, grace_s: float
) -> tuple[tuple[str, ...], tuple[Garbage, ...]]:
    """Packs to bring back, since a commit needs them, and files to delete. The last copy is never deleted."""
    restore: list[str] = []
    purge: list[Garbage] = []
    now = time.time()
    for name, since in packs.quarantined().items():
        pack_id = name.partition(".")[0]
        if pack_id in known.uses and not packs.has(pack_id):
            if name == pack_id and packfile.is_whole(packs.quarantine / name, pack_id):
                restore.append(pack_id)
        elif now - since >= grace_s:
            purge.append(Garbage(name, (packs.quarantine / name).stat().st_size, now - since))
    return tuple(restore), tuple(purge)


def _delete(paths: list[Path]) -> None:
    for path in paths:
        tempfiles.delete(path)
        durable.step(f"delete {path.name}")
    for folder in sorted({path.parent for path in paths}):
        durable.fsync_dir(folder)
