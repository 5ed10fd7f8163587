"""Old or new after a crash: the process is stopped after its durable steps, all of those near a ref move.

tests/stress has the same for the command line, with every step, random kills and power loss.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TESTS
from support.registries import BASE, FILES, add, fsck, new_registry, recover, scale
from support.steering import add_steering

from pv.registry.disk import durable, locks
from pv.registry.errors import StorageError
from pv.registry.format_file import format_bytes
from pv.registry.git import refs
from pv.registry.history import operations
from pv.registry.persona import Persona
from pv.registry.registry import Registry

ACTIONS: dict[str, Callable[[Registry], object]] = {
    "commit": lambda registry: add(registry, "b", 2),
    "merge": lambda registry: registry.merge("side"),
    "branch": lambda registry: registry.create_branch("new", switch=True),
    "delete": lambda registry: registry.delete_branch("side"),
    "rename": lambda registry: registry.rename_branch("main", "trunk"),
    "steer": lambda registry: add_steering(registry, "formal"),
    "undo": lambda registry: registry.undo(),
    "undo to": lambda registry: registry.undo(to=2),
}


def stopped_after(steps: int, action: Callable[[], object]) -> tuple[bool, str]:
    """Run `action` in a child that dies after so many durable steps: (did it end?, the last step)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        left = steps

        def fault(label: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                os.write(writing, label.encode())
                os._exit(9)

        try:
            durable.fault = fault
            action()
            os._exit(0)
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(1)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8") as pipe:
        label = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), label
    return code == 0, label


def prepare(where: Path) -> Registry:
    registry = new_registry(where)
    add(registry, "a", 1)
    registry.create_branch("side", switch=True)
    registry.change("scale", "m", scale("a", 2.0))
    registry.switch("main")
    registry.tag("v1")
    return registry


def state(registry: Registry) -> tuple[str, dict[str, bytes]]:
    """What a user can see: the current branch, and the persona behind every ref."""
    now = operations.view(registry.history)
    return now.head, {
        ref: registry.persona(commit).to_bytes() for ref, commit in now.refs.items() if ref != refs.OPS
    }


def steps_of(action: Callable[[], object]) -> list[str]:
    """The durable steps of an action that nothing stops. Their number varies a little: ids hold the time."""
    steps: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "fault", steps.append)
        action()
    return steps


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_a_fault_after_a_step(tmp_path: Path, action: str) -> None:
    def act(where: Path) -> None:
        with Registry.find(where) as registry:
            ACTIONS[action](registry)

    start, whole = tmp_path / "start", tmp_path / "whole"
    with prepare(start) as registry:
        old = state(registry)
    shutil.copytree(start, whole)
    steps = steps_of(lambda: act(whole))
    with Registry.find(whole) as registry:
        new = state(registry)
    assert old != new

    moved = steps.index(f"move {refs.OPS}")
    for stop in sorted({*range(0, moved, 8), *range(moved - 1, len(steps)), len(steps) + 9}):
        where = tmp_path / str(stop)
        shutil.copytree(start, where)
        ended, label = stopped_after(stop, lambda: act(where))  # noqa: B023
        with Registry.find(where) as registry:
            assert state(registry) == new if ended else state(registry) in (old, new), label
            recover(registry)
            assert state(registry) in (old, new), label
            if stop % 4 == 0:
                registry.change("scale", "m", scale("a", 7.0))  # nothing blocks the next writer
                assert registry.persona().behaviours["a"].weight == 7.0
            fsck(registry)
        shutil.rmtree(where)
    assert ended

    first_ref = next(i for i, label in enumerate(steps) if label.startswith("move ") and i != moved)
    assert moved < first_ref
    assert all(not label.startswith(("git ", "write pack", "rename")) for label in steps[moved:first_ref])
    assert steps[moved - 1] == "fsync dir objects"  # what the operation leads to was durable by then


def test_the_format_says_steering_before_a_ref_moves(tmp_path: Path) -> None:
    def act(where: Path) -> None:
        with Registry.find(where) as registry:
            add_steering(registry, "formal")

    start, whole = tmp_path / "start", tmp_path / "whole"
    with prepare(start) as registry:
        old = state(registry)
        assert (start / ".pv/format").read_bytes() == format_bytes()
    shutil.copytree(start, whole)
    steps = steps_of(lambda: act(whole))
    written = steps.index("rename format")
    assert steps[written + 1] == "fsync dir .pv"
    assert written + 1 < steps.index(f"move {refs.OPS}")
    for stop, steering in (
        (written - 1, False),
        (written, True),
    ):  # it dies just before the rename, and after it
        where = tmp_path / str(stop)
        shutil.copytree(start, where)
        stopped_after(stop, lambda: act(where))  # noqa: B023
        assert (where / ".pv/format").read_bytes() == format_bytes(steering=steering)
        with Registry.find(where) as registry:
            assert state(registry) == old
            fsck(registry)
            add_steering(registry, "formal")  # nothing blocks the next writer
            assert (where / ".pv/format").read_bytes() == format_bytes(steering=True)


@pytest.mark.slow
def test_a_fault_in_init_leaves_no_registry(tmp_path: Path) -> None:
    def act(where: Path) -> None:
        with Registry.creating(where) as registry:
            registry.start(Persona(BASE.id), BASE, FILES, "Begin")

    renamed = steps_of(lambda: act(tmp_path / "whole")).index("rename .pv")
    stops = [*range(0, renamed - 6, 9), *range(renamed - 6, renamed + 20)]
    kept = []
    for stop in stops:
        where = tmp_path / str(stop)
        ended, _ = stopped_after(stop, lambda: act(where))  # noqa: B023
        kept.append((where / ".pv").exists())
        if not kept[-1]:
            act(where)  # what was left behind is in nobody's way
        with Registry.find(where) as registry:
            assert registry.log()[0].subject == "Begin"
            fsck(registry)
        if ended:
            break
    assert kept[0] is False
    assert kept[-1] is True


SLOW_GIT = """#!/bin/sh
case "$*" in *update-ref*) touch {mark}; sleep 1.5;; esac
exec {git} "$@"
"""


def test_the_git_of_a_killed_pv_keeps_the_lock(tmp_path: Path) -> None:
    git = shutil.which("git")
    mark = tmp_path / "moving"
    slow = tmp_path / "bin" / "git"
    slow.parent.mkdir()
    slow.write_text(SLOW_GIT.format(mark=mark, git=git))
    slow.chmod(0o755)
    where = tmp_path / "r"
    with prepare(where) as registry:
        old = state(registry)
    kit = str(TESTS)
    code = f"import sys; sys.path.insert(0, {kit!r})\n" + (
        "from pathlib import Path\nfrom pv.registry.registry import Registry\nfrom support.registries import scale\n"
        "with Registry.find(Path(sys.argv[1])) as r: r.change('scale', 'm', scale('a', 7.0))\n"
    )
    environment = {**os.environ, "PATH": f"{slow.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen([sys.executable, "-c", code, str(where)], env=environment)
    with process:
        while not mark.exists():
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        process.kill()
    with pytest.raises(StorageError), locks.exclusive(where / ".pv" / "refs.lock", timeout_s=0):
        pass  # pv is dead, but its git is about to move a ref
    with Registry.find(where) as registry:
        recover(registry)
        assert state(registry)[1]["refs/tags/v1"] == old[1]["refs/tags/v1"]
        assert registry.persona().behaviours["a"].weight in (1.0, 7.0)
        registry.change("scale", "m", scale("a", 9.0))
        fsck(registry)
