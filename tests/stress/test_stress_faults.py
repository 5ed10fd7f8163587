"""Old or new: a command is stopped after every write, sync and rename in turn, and nothing is damaged."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stress_kit import ACTIONS, Runner, World, check, state

from pv.registry import fsck, refs
from pv.vecstore import scrub


@pytest.mark.slow
@pytest.mark.parametrize("action", ACTIONS)
def test_a_fault_after_every_step(
    runner: Runner, world: World, tmp_path: Path, full: bool, action: str
) -> None:
    line = world.action(action)
    old = state(world.root)
    whole = world.copy(tmp_path / "whole")
    ran = runner.ok(whole.folder, line)
    new, steps = state(whole.root), ran.steps
    assert (old == new) == (action == "gc")
    assert len(steps) > 10
    moved = steps.index(f"move {refs.OPS}")
    stops = range(len(steps))
    if not full:
        stops = sorted({*range(0, len(steps), 17), *range(moved - 1, moved + 4), len(steps) - 1})

    seen = {"old": 0, "new": 0}
    for stop in stops:
        here = world.copy(tmp_path / "here")
        ran = runner(here.folder, line, stop=stop)
        assert ran.stopped or stop > len(steps) - 5, ran  # their number varies a little: ids hold the time
        check(here.root)
        left = state(here.root)
        assert left in (old, new), ran.label
        seen["old" if left == old else "new"] += 1
        # Nothing is in the way of what comes next: not of the same command, not of another.
        if left == old and action != "gc":
            assert runner(here.folder, line).code == 0, ran.label
            assert state(here.root) == new, ran.label
        runner.ok(here.folder, ACTIONS["gc"], ["scale", "a", "7"], ["undo"])
        assert check(here.root).of("unfinished") == []
        if action == "commit":
            assert scrub.deep(here.root, fsck.check(here.root)).clean, ran.label
        shutil.rmtree(here.folder)
    print(f"{action}: {len(steps)} steps, stopped after {len(stops)}: {seen}")
    assert action == "gc" or (seen["old"] and seen["new"])
