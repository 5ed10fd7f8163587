"""Old or new after a crash: the process is stopped after every durable step in turn, and at random times."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from store_kit import BASE, FILES, add, fsck, new_registry, scale

from pv.registry import durable, operations, refs
from pv.registry.persona import Persona
from pv.registry.registry import Registry

ACTIONS: dict[str, Callable[[Registry], object]] = {
    "commit": lambda registry: add(registry, "b", 2),
    "merge": lambda registry: registry.merge("side"),
    "branch": lambda registry: registry.create_branch("new", switch=True),
    "delete": lambda registry: registry.delete_branch("side"),
    "undo": lambda registry: registry.undo(),
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


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_a_fault_after_every_step(tmp_path: Path, action: str) -> None:
    def act(where: Path) -> None:
        with Registry.find(where) as registry:
            ACTIONS[action](registry)

    start = tmp_path / "start"
    with prepare(start) as registry:
        old = state(registry)
    shutil.copytree(start, tmp_path / "whole")
    act(tmp_path / "whole")
    with Registry.find(tmp_path / "whole") as registry:
        new = state(registry)
    assert old != new

    labels: list[str] = []
    ended = False
    while not ended:
        where = tmp_path / str(len(labels))
        shutil.copytree(start, where)
        ended, label = stopped_after(len(labels), lambda: act(where))  # noqa: B023
        labels.append(label)
        with Registry.find(where) as registry:
            assert state(registry) == new if ended else state(registry) in (old, new), labels
            registry.recover()
            assert state(registry) in (old, new), labels
            if len(labels) % 4 == 0:
                registry.change("scale", "m", scale("a", 7.0))  # nothing blocks the next writer
                assert registry.persona().behaviours["a"].weight == 7.0
            fsck(registry)
        shutil.rmtree(where)
    moved = labels.index(f"move {refs.OPS}")
    first_ref = next(i for i, label in enumerate(labels) if label.startswith("move ") and i != moved)
    assert moved < first_ref
    assert all(not label.startswith(("git ", "write pack", "rename")) for label in labels[moved:first_ref])
    assert labels[moved - 1] == "fsync dir objects"  # what the operation leads to was durable by then


@pytest.mark.slow
def test_a_fault_in_init_leaves_no_registry(tmp_path: Path) -> None:
    def act(where: Path) -> None:
        with Registry.creating(where) as registry:
            registry.start(Persona(BASE.id), BASE, FILES, "Begin")

    steps: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "fault", steps.append)
        act(tmp_path / "whole")
    renamed = steps.index("rename .pv")
    for stop in [*range(0, renamed, 9), *range(renamed - 2, len(steps))]:
        where = tmp_path / str(stop)
        ended, label = stopped_after(stop, lambda: act(where))  # noqa: B023
        assert not ended
        assert (where / ".pv").exists() == (stop >= renamed), label
        if stop < renamed:
            act(where)  # what was left behind is in nobody's way
        with Registry.find(where) as registry:
            assert registry.log()[0].subject == "Begin"
            fsck(registry)


LOOP = """
from pathlib import Path
from pv.registry.registry import Registry
from store_kit import add, scale
with Registry.find(Path(sys.argv[1])) as registry:
    for number in range(1000):
        commit = add(registry, f"b{number % 3}", 10 + number)
        print(commit, flush=True)
        registry.create_branch("new")
        registry.delete_branch("new")
        registry.undo()
        registry.undo()
"""


@pytest.mark.slow
def test_killed_at_random_times(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print("seed", seed)  # shown if it fails
    chance = random.Random(seed)
    prepare(tmp_path).close()
    kit = str(Path(__file__).parent.parent)
    for _ in range(12):
        process = subprocess.Popen(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, {kit!r})\n" + LOOP, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        with process:
            acknowledged = [process.stdout.readline().strip()]
            time.sleep(chance.uniform(0, 0.6))
            if chance.random() < 0.5:
                process.kill()  # its git lives on, and keeps the lock until it is done
            else:
                os.killpg(process.pid, signal.SIGKILL)
            acknowledged += process.stdout.read().split()
        with Registry.find(tmp_path) as registry:
            registry.recover()
            fsck(registry)
            kept = {entry.id for entry in registry.log(all=True)}
            assert all(commit in kept for commit in acknowledged if len(commit) == 40)
