"""SIGKILL at random times: whatever was acknowledged is there, and nothing is damaged."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from support.registries import recover
from support.stress import ACTIONS, Runner, World, check, state

from pv.registry.check import fsck
from pv.registry.registry import Registry
from pv.vecstore.check import decode

KILLS, QUICK = 200, 20


def lines(world: World, kill: int) -> list[list[str | Path]]:
    """What one process does until it is killed. Its undo takes back a branch, never a commit."""
    found: list[list[str | Path]] = []
    for turn in range(6):
        number = 6 * kill + turn
        checkpoint = world.tuned[number % len(world.tuned)]
        found += [
            ["commit", checkpoint, "--as", f"k{number % 3}", "--threads", "1", "--json"],
            ["branch", f"n{number}"],
            ["undo"],
            ["switch", "side"],
            ["scale", "b", str(number), "--json"],
            ["switch", "main"],
            ["merge", "side", "--json"],
            list(ACTIONS["gc"]),
        ]
    return found


@pytest.mark.slow
def test_killed_at_random_times(runner: Runner, world: World, tmp_path: Path, full: bool) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    here = world.copy(tmp_path / "here")
    killed = unfinished = 0
    longest = 0.5  # seconds: long enough, on this machine and today, for some commits, not for all of them
    acknowledged: set[str] = set()
    for kill in range(KILLS if full else QUICK):
        delay, group = chance.uniform(0, longest), chance.random() < 0.5
        ran = runner(here.folder, *lines(world, kill), kill=delay, group=group)
        assert ran.code not in (3, 70), (seed, kill, ran)
        killed += ran.code == -signal.SIGKILL
        acknowledged |= set(ran.commits)
        longest *= 1.3 if not ran.commits else 0.9 if len(ran.commits) > 4 else 1
        unfinished += len(check(here.root).of("unfinished"))
        state(here.root)  # it can be read before anything is mended
        with Registry(here.root) as registry:
            recover(registry)
            kept = {entry.id for entry in registry.log(all=True)}
        assert check(here.root).of("unfinished") == []
        assert acknowledged <= kept, (seed, kill)
        if kill % 10 == 9:
            assert decode.deep(here.root, fsck.check(here.root)).clean, (seed, kill)
    print(
        f"seed {seed}: {killed} kills, {unfinished} operations unfinished, {len(acknowledged)} commits kept"
    )
    assert killed > (KILLS if full else QUICK) // 2
    assert len(acknowledged) > killed // 4
