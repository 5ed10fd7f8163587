"""Builds that are killed, again and again, while another process switches, commits, reverts and collects garbage."""

from __future__ import annotations

import random
import shutil
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from support.stress import ACTIONS, Runner, World, check, state

Line = Sequence[str | Path]


def churn(runner: Runner, world: World, stop: Event) -> int:
    """What goes on meanwhile; it ends as it began, but for its commits."""
    rounds = 0
    while not stop.is_set():
        rounds += 1
        lines: list[Line] = [
            ["switch", "side"],
            ["scale", "b", str(rounds)],
            ["commit", world.tuned[2], "--as", "c", "--threads", "1"],
            ["revert", "HEAD"],
            ["switch", "main"],
            ACTIONS["gc"],
        ]
        runner.ok(world.folder, *lines)
    return rounds


def in_folder(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def meanwhile(world: World, work: Callable[[], None]) -> int:
    stop = Event()
    with Runner() as other, ThreadPoolExecutor(1) as pool:
        rounds = pool.submit(churn, other, world, stop)
        try:
            work()
        finally:
            stop.set()
        return rounds.result()


@pytest.mark.slow
def test_builds_that_are_killed_while_others_write(
    runner: Runner, world: World, tmp_path: Path, full: bool
) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    here = world.copy(tmp_path / "here")
    build = ["build", "main", "-o", "out", "--shard-size", "0.001", "--threads", "2"]
    runner.ok(here.folder, ["build", "main", "-o", tmp_path / "cold", "--shard-size", "0.001"])
    cold, killed, longest = in_folder(tmp_path / "cold"), 0, 0.3

    def work() -> None:
        nonlocal killed, longest
        for kill in range(100 if full else 12):
            steps = chance.random() < 0.5
            ran = (
                runner(here.folder, build, stop=chance.randrange(40))
                if steps
                else runner(here.folder, build, kill=chance.uniform(0, longest))
            )
            assert ran.code in (0, 99, -signal.SIGKILL), (seed, kill, ran)
            killed += ran.code != 0
            if (here.folder / "out").exists():  # whole, or not at all
                assert in_folder(here.folder / "out") == cold, (seed, kill)
                runner.ok(here.folder, build)  # which is there already
                shutil.rmtree(here.folder / "out")

    rounds = meanwhile(here, work)
    runner.ok(here.folder, build)
    assert in_folder(here.folder / "out") == cold
    assert check(here.root).damage == ()
    print(f"seed {seed}: {killed} builds killed, {rounds} rounds of another process")
    assert killed and rounds


@pytest.mark.slow
def test_shards_that_are_killed_while_others_write(
    runner: Runner, world: World, tmp_path: Path, full: bool
) -> None:
    """In any order, each again until it says that it is done; the last one makes the folder."""
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    here = world.copy(tmp_path / "here")
    runner.ok(here.folder, ["build", "main", "-o", tmp_path / "cold", "--json"])
    killed = 0

    def share(number: int) -> list[str]:
        return ["build", "main", "-o", "out", "--shards", f"{number}/4", "--threads", "1"]

    def work() -> None:
        nonlocal killed
        for _ in range(10 if full else 2):
            pending = [1, 2, 3, 4, 2]
            chance.shuffle(pending)
            while pending:
                ran = runner(here.folder, share(pending[0]), stop=chance.randrange(30))
                assert ran.code in (0, 99), (seed, ran)
                killed += ran.code == 99
                if ran.code == 0:
                    pending.pop(0)
            verified = runner.ok(here.folder, ["verify", "out", "main", "--json"])
            assert '"same": true' in verified.out, verified
            assert not (here.folder / "out.pvparts").exists()
            shutil.rmtree(here.folder / "out")

    rounds = meanwhile(here, work)
    assert check(here.root).damage == ()
    print(f"seed {seed}: {killed} shards killed, {rounds} rounds of another process")
    assert killed and rounds


def test_a_shard_changes_nothing_in_the_registry(runner: Runner, world: World, tmp_path: Path) -> None:
    here = world.copy(tmp_path / "here")
    before = state(here.root)
    names = {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()}
    runner.ok(here.folder, ["build", "-o", "out", "--shards", "2/3"])
    assert state(here.root) == before
    assert {path: path.read_bytes() for path in here.root.rglob("*") if path.is_file()} == names
