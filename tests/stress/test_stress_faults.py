"""Old or new: a command is stopped after every write, sync and rename in turn, and nothing is damaged."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.stress import ACTIONS, Runner, World, check, state

from pv.registry.check import fsck
from pv.registry.git import loose, refs
from pv.registry.registry import Registry
from pv.vecstore.check import decode


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
    stops: Sequence[int] = range(len(steps))
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
            assert decode.deep(here.root, fsck.check(here.root)).clean, ran.label
        shutil.rmtree(here.folder)
    print(f"{action}: {len(steps)} steps, stopped after {len(stops)}: {seen}")
    assert action == "gc" or (seen["old"] and seen["new"])


def _damage(world: World) -> None:
    """Of all sorts: HEAD, a branch, the operations, an object, the pinned base, a pack with a copy, a record."""
    git = world.root / "history.git"
    with Registry(world.root) as registry:
        base, head = registry.base().id, registry.resolve("HEAD")
        vector = registry.persona().vectors[0]
        manifest = registry.history.entry(head, f"vectors/{vector}.json")
        assert manifest is not None
    packs = [world.root / "packs" / pack_id[:2] / pack_id for pack_id in (base, vector)]
    shutil.copy(packs[1], world.root / "quarantine" / vector)
    for path in [*packs, loose.object_path(git, manifest.id), next((world.root / "records").iterdir())]:
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-3])
    (git / "HEAD").unlink()
    for ref in ("refs/heads/side", refs.OPS):
        (git / ref).write_bytes(b"?")


@pytest.mark.slow
def test_a_repair_that_is_stopped_makes_nothing_worse(
    runner: Runner, world: World, tmp_path: Path, full: bool
) -> None:
    """And the next one mends the rest."""
    old = state(world.root)
    damaged = world.copy(tmp_path / "damaged")
    _damage(damaged)
    line = ["fsck", "--repair", "--threads", "1"]
    before = {(f.kind, f.where) for f in fsck.check(damaged.root).damage}
    steps = runner.ok(damaged.copy(tmp_path / "whole").folder, line).steps
    assert len(before) >= 7 and len(steps) > 30
    for stop in range(0, len(steps), 1 if full else 11):
        here = damaged.copy(tmp_path / "here")
        ran = runner(here.folder, line, stop=stop)
        assert ran.stopped, ran
        assert {(f.kind, f.where) for f in fsck.check(here.root).damage} <= before, ran.label
        assert runner(here.folder, line).code == 0, ran.label
        check(here.root)
        assert {**state(here.root), "last": 0} == {**old, "last": 0}, ran.label
        shutil.rmtree(here.folder)
    print(f"repair: {len(steps)} steps")
