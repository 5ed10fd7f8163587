"""gc takes out what nothing needs, and nothing else: not what is young, in use, or could be undone."""

from __future__ import annotations

import hashlib
import os
import threading
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from support.registries import add, fsck, git, new_registry, pack_bytes, put_pack, run_python, scale, vector

from pv.registry.check import gc
from pv.registry.check.gc import DAY, Plan
from pv.registry.disk import locks
from pv.registry.errors import IntegrityError, NotFoundError, UsageError
from pv.registry.git import loose, refs
from pv.registry.git.objects import RefChange
from pv.registry.history import operations
from pv.registry.registry import Registry

ALL: dict[str, Any] = {"grace_s": 0.0, "expire_s": 0.0}


class LongAgo(datetime):
    @classmethod
    def now(cls, tz: tzinfo | None = None) -> LongAgo:
        return super().now(tz) - timedelta(days=40)


def age(registry: Registry, pack_id: str, days: float) -> None:
    path = registry.packs.path(pack_id)
    then = path.stat().st_mtime - days * DAY
    os.utime(path, (then, then))


def everything(root: Path) -> dict[str, str]:
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name != "gate"
    }


def names(garbage: tuple[gc.Garbage, ...]) -> list[str]:
    return [one.name for one in garbage]


def test_nothing_to_do(registry: Registry) -> None:
    add(registry, "a", 1)
    before = everything(registry.root)
    done = gc.collect(registry)
    assert done.empty and done == Plan((), (), (), (), (), (), (), 0, 0)
    assert everything(registry.root) == before


def test_a_pack_goes_by_way_of_the_quarantine(registry: Registry) -> None:
    add(registry, "a", 1)
    lost = put_pack(registry.packs, 9)
    assert gc.collect(registry).young == 1
    age(registry, lost, 15)
    todo = gc.plan(registry)
    assert names(todo.quarantine) == [lost] and todo.freed == 0
    assert todo.quarantine[0].nbytes == len(pack_bytes(9)) and 15 <= todo.quarantine[0].age_s / DAY < 16
    assert registry.packs.has(lost)  # a plan does nothing
    assert names(gc.collect(registry).quarantine) == [lost]
    assert not registry.packs.has(lost)
    assert (registry.packs.quarantine / lost).read_bytes() == pack_bytes(9)
    assert gc.collect(registry).empty  # the grace period begins again

    os.utime(registry.packs.quarantine / lost, (0, 0))
    todo = gc.plan(registry)
    assert names(todo.purge) == [lost] and todo.freed == len(pack_bytes(9))
    gc.collect(registry)
    assert list(registry.packs.quarantine.iterdir()) == []
    fsck(registry)


def test_no_pack_is_deleted_by_the_gc_that_takes_it_out(registry: Registry) -> None:
    lost = put_pack(registry.packs, 9)
    done = gc.collect(registry, **ALL)
    assert (names(done.quarantine), names(done.purge)) == ([lost], [])
    done = gc.collect(registry, **ALL)
    assert (names(done.quarantine), names(done.purge)) == ([], [lost])


def test_what_refs_need_stays(registry: Registry) -> None:
    """Branches, tags, remote branches; and their past, not only their tips."""
    needed = []
    for number, ref in enumerate(("refs/heads/side", "refs/tags/v1", "refs/remotes/origin/main")):
        commit = add(registry, "a", number)
        needed.append(vector(number).id)
        later = registry.change("drop", "m", lambda p: p.without("a"))
        registry.undo()
        registry.undo()
        history = registry.history
        target = later if ref.startswith("refs/heads") else commit
        with locks.exclusive(registry.root / "refs.lock") as lock:
            operations.publish(history, f"make {ref}", [RefChange(ref, None, target)], lock=lock)
    lost = put_pack(registry.packs, 9)
    for _ in range(2):
        gc.collect(registry, **ALL)
    assert [registry.packs.has(pack_id) for pack_id in needed] == [True] * 3
    assert not registry.packs.has(lost)
    fsck(registry)


def test_what_could_be_undone_stays_until_it_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(operations, "datetime", LongAgo)
        new_registry(tmp_path).close()
        with Registry.find(tmp_path) as registry:
            add(registry, "old", 1)
            registry.undo()
    with Registry.find(tmp_path) as registry:
        _expire_and_undo(registry)


def _expire_and_undo(registry: Registry) -> None:
    kept = add(registry, "kept", 2)
    gone = add(registry, "young", 3)
    registry.undo()
    for seed in (1, 2, 3):
        age(registry, vector(seed).id, 15)
    before = [operation.seq for operation in registry.operations()]
    todo = gc.plan(registry)
    assert todo.expire == (3, 2, 1)
    assert names(todo.quarantine) == [vector(1).id]
    stored = set(loose.stored(registry.history.path))
    done = gc.collect(registry)
    assert done.expire == todo.expire and names(done.quarantine) == names(todo.quarantine)
    assert stored - set(loose.stored(registry.history.path)) == {*done.commits, *done.objects}

    after = registry.operations()
    assert [operation.seq for operation in after] == before[:3] == [6, 5, 4]
    assert [operation.undoes for operation in after] == [5, None, None]
    assert registry.resolve("HEAD") == kept
    fsck(registry)
    assert [o.seq for o in registry.redo().brought_back] == [
        5
    ]  # what the youngest undo took away comes back, with its pack
    assert registry.resolve("HEAD") == gone
    assert registry.packs.has(vector(3).id)
    registry.undo()
    registry.undo()  # past `kept`, to what was there before the oldest operation that is left
    with pytest.raises(UsageError, match="nothing left"):
        registry.undo()
    assert registry.operations()[0].seq == 9
    fsck(registry)
    assert gc.collect(registry).expire == ()


def test_the_newest_operation_never_expires(registry: Registry) -> None:
    add(registry, "a", 1)
    add(registry, "b", 2)
    done = gc.collect(registry, **ALL)
    assert done.expire == (2, 1)
    assert [operation.seq for operation in registry.operations()] == [3]
    registry.undo()
    assert set(registry.persona().behaviours) == {"a"}
    fsck(registry)


def test_git_objects_of_expired_operations_go(registry: Registry) -> None:
    for _ in range(4):
        registry.change("again", "m", lambda p: p, allow_empty=True)
    for _ in range(3):
        registry.undo()
    git_dir = registry.history.path
    gc.collect(registry, **ALL)
    reachable = set(git(registry, "rev-list", "--objects", "--all").split())
    assert set(loose.stored(git_dir)) == reachable & set(loose.stored(git_dir))
    assert gc.collect(registry, **ALL).empty
    git(registry, "fsck", "--strict", "--full", "--unreachable")
    fsck(registry)


def test_what_leads_to_others_is_deleted_first(registry: Registry) -> None:
    add(registry, "a", 1)
    add(registry, "a", 2)
    registry.undo()
    registry.undo()
    registry.change("m", "m", lambda p: p, allow_empty=True)
    history = registry.history
    todo = gc.plan(registry, **ALL)
    assert len(todo.commits) > 4 and len(todo.objects) > 8
    order = [*todo.commits, *todo.objects]
    for place, object_id in enumerate(order):
        if history.kind(object_id) == "commit":
            leads = [history.commit(object_id).tree, *history.commit(object_id).parents]
        elif history.kind(object_id) == "tree":
            leads = [entry.id for entry in history.tree(object_id).values()]
        else:
            leads = []
        assert all(other not in order[:place] for other in leads)


def test_what_a_running_process_holds_stays(registry: Registry) -> None:
    held = put_pack(registry.packs, 9)
    age(registry, held, 99)
    with registry.packs.holding(held):
        done = gc.collect(registry, **ALL)
        assert (done.in_use, done.quarantine) == (1, ())
        assert registry.packs.has(held)
    assert names(gc.collect(registry, **ALL).quarantine) == [held]


def test_a_pack_that_was_written_again_is_young(registry: Registry) -> None:
    lost = put_pack(registry.packs, 9)
    age(registry, lost, 99)
    put_pack(registry.packs, 9)
    assert gc.collect(registry).young == 1


def test_gc_waits_for_whoever_writes(registry: Registry, tmp_path: Path) -> None:
    done: list[Plan] = []

    def collect() -> None:
        with Registry.find(tmp_path) as mine:
            done.append(gc.collect(mine, **ALL))

    thread = threading.Thread(target=collect)
    with registry.writing():
        written = put_pack(registry.packs, 1)
        thread.start()
        thread.join(0.5)
        assert thread.is_alive() and registry.packs.has(written)
        add(registry, "a", 1)
    thread.join(60)
    assert names(done[0].quarantine) == []
    assert registry.packs.has(written)


def test_a_needed_pack_comes_back(registry: Registry) -> None:
    add(registry, "a", 1)
    registry.packs.remove(vector(1).id)
    os.utime(registry.packs.quarantine / vector(1).id, (0, 0))
    assert gc.plan(registry).restore == (vector(1).id,)
    gc.collect(registry, **ALL)
    assert registry.packs.path(vector(1).id).read_bytes() == pack_bytes(1)
    fsck(registry)


def test_the_last_copy_is_never_deleted(registry: Registry) -> None:
    """A needed pack is gone, and what is left of it is damaged: still better than nothing."""
    add(registry, "a", 1)
    needed = vector(1).id
    registry.packs.path(needed).unlink()
    copies = [
        registry.packs.quarantine / needed,
        registry.packs.quarantine / f"{needed}.20260101T000000.damaged",
    ]
    for copy in copies:
        copy.write_bytes(pack_bytes(1)[:-1])
        os.utime(copy, (0, 0))
    for _ in range(2):
        assert gc.collect(registry, **ALL).purge == ()
    put_pack(registry.packs, 1)
    assert names(gc.collect(registry, **ALL).purge) == [copy.name for copy in copies]


def test_nothing_is_touched_where_something_is_damaged(registry: Registry) -> None:
    add(registry, "a", 1)
    add(registry, "b", 2)
    registry.undo()
    lost = put_pack(registry.packs, 9)
    age(registry, lost, 99)
    ref = registry.history.path / "refs/heads/main"
    whole = ref.read_bytes()
    entry = registry.history.entry(registry.resolve("HEAD"), "persona.json")
    assert entry is not None
    blob = loose.object_path(registry.history.path, entry.id)
    for path, damaged in ((ref, b"?" * 41), (blob, b"")):
        whole = path.read_bytes()
        path.chmod(0o644)
        path.write_bytes(damaged)
        before = everything(registry.root)
        for act in (gc.plan, gc.collect):
            with pytest.raises(IntegrityError):
                act(registry, **ALL)
        assert everything(registry.root) == before
        path.write_bytes(whole)
    assert set(names(gc.collect(registry, **ALL).quarantine)) == {lost}  # the newest operation still names b


def test_an_unfinished_operation_is_finished_first(registry: Registry) -> None:
    commit = add(registry, "a", 1)
    old = registry.parents()[0]
    (registry.history.path / "refs/heads/main").write_text(f"{old}\n")  # as if killed before it moved
    gc.collect(registry, **ALL)
    assert registry.history.refs()["refs/heads/main"] == commit
    assert registry.packs.has(vector(1).id)
    fsck(registry)


def test_leftovers_are_swept(registry: Registry) -> None:
    code = """
import os
from pathlib import Path
from pv.registry.packs.store import PackStore
with PackStore(Path(sys.argv[1])).writer() as pack, PackStore(Path(sys.argv[1])).scratch("build") as folder:
    (folder / "model.safetensors").write_bytes(b"half")
    os._exit(9)
"""
    assert run_python(code, str(registry.root), check=False).returncode == 9
    half = registry.history.path / "objects" / "ab"
    half.mkdir(exist_ok=True)
    (half / "tmp_obj_x").write_bytes(b"half")
    assert gc.collect(registry).leftovers == ()  # too young to tell
    for path in [*registry.packs.tmp.rglob("*"), *registry.packs.tmp.iterdir(), half / "tmp_obj_x"]:
        os.utime(path, (0, 0))
    assert len(gc.plan(registry).leftovers) == 3
    gc.collect(registry)
    assert list(registry.packs.tmp.iterdir()) == []
    assert not (half / "tmp_obj_x").exists()


def test_a_commit_that_was_collected_cannot_be_named(registry: Registry) -> None:
    commit = add(registry, "a", 1)
    registry.undo()
    registry.change("m", "m", lambda p: p, allow_empty=True)
    assert registry.resolve(commit) == commit
    gc.collect(registry, **ALL)
    with pytest.raises(NotFoundError):
        registry.resolve(commit)
    add(registry, "a", 1)  # and may be made again
    fsck(registry)


def test_the_plan_of_the_git_objects_spares_what_the_expiry_writes(registry: Registry) -> None:
    """A gc that was killed after it had written the new chain, and before it moved the ref to it."""
    for seed in (1, 2):
        add(registry, f"b{seed}", seed)
    chain = registry.operations()
    with locks.alone(registry.root), locks.exclusive(registry.root / "refs.lock") as lock:
        tip = registry.history.refs()[refs.OPS]
        operations.rewrite(registry.history, chain[:1], lock)
        registry.history.update_refs([RefChange(refs.OPS, registry.history.refs()[refs.OPS], tip)])
    gc.collect(registry, **ALL)
    assert [operation.seq for operation in registry.operations()] == [3]
    registry.change("scale", "m", scale("b1", 2.0))
    fsck(registry)
