"""Power loss: what was acknowledged survives it, and what was not is there whole or not at all.

A command is traced; then, for a cut after each of its system calls, the state is rebuilt that would be left
if everything that was not yet synced were lost, or some of it. The test must be able to fail: without the
syncs, it does.
"""

from __future__ import annotations

import random
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.forgetful_disk import Call, Disk, NotTraceable, record
from support.registries import recover
from support.stress import World, state

from pv.registry.check import fsck
from pv.registry.errors import PvError
from pv.registry.registry import Registry

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
WAYS = ("all", "bytes", "some", "some")
QUICK = 9
SEED = 7

RUN = "import sys\nfrom pv.cli.main import run\n{patch}\nsys.exit(run(sys.argv[1:]))"
NO_FOLDERS = "from pv.registry.disk import durable\ndurable.fsync_dir = lambda path: None"
NO_BYTES = "from pv.registry.disk import durable\ndurable.fsync_file = lambda fd: None"


@dataclass(frozen=True)
class Recording:
    """A traced command: the registry before it (in the place where it was traced), and what it did."""

    before: Path
    calls: list[Call]
    old: dict[str, object]


def trace(world: World, tmp_path: Path, line: Sequence[str | Path], patch: str = "") -> Recording:
    here = world.copy(tmp_path / "here")
    before = world.copy(tmp_path / "before")
    calls = traced(here.folder, tmp_path, line, patch)
    root = str(here.root)
    assert any(path.startswith(root) for call in calls for path in call.paths)
    shutil.rmtree(here.root)
    shutil.copytree(before.root, here.root)  # the model is of the same paths
    return Recording(here.root, calls, state(before.root))


def traced(folder: Path, tmp_path: Path, line: Sequence[str | Path], patch: str = "") -> list[Call]:
    command = [sys.executable, "-c", RUN.format(patch=patch), "-C", str(folder), "-q", *map(str, line)]
    try:
        return record(command, tmp_path / "traces", tmp_path)[0]
    except NotTraceable as error:
        pytest.skip(f"strace may not trace here: {error}")


def cuts(recording: Recording, tmp_path: Path, wanted: int | None) -> tuple[Counter[str], list[str]]:
    """Cut the power after each call (or after some), in every way; what was left, and what was wrong with it."""
    disk = Disk(recording.before)
    chance = random.Random(SEED)
    points = [n for n, call in enumerate(recording.calls) if disk.replay(call)]
    whole = write(disk, "none", chance, tmp_path / "whole")
    new = state(whole)
    told = max(n for n, call in enumerate(recording.calls) if call.name == "write" and call.fd == 1)
    chosen = set(points if wanted is None else chance.sample(points, min(wanted, len(points))))
    chosen.add(len(recording.calls) - 1)  # after the answer: nothing may be lost any more
    disk = Disk(recording.before)
    seen: set[int] = set()
    count: Counter[str] = Counter()
    wrong: list[str] = []
    for number, call in enumerate(recording.calls):
        disk.replay(call)
        if number not in chosen:
            continue
        for way in WAYS:
            left = disk.left(way, chance)
            key = hash((number >= told, *((name, data or b"") for name, data in sorted(left.items()))))
            if key in seen:
                continue
            seen.add(key)
            shutil.rmtree(tmp_path / "left", ignore_errors=True)
            root = lay_out(left, tmp_path / "left" / ".pv")
            fault = judge(root, recording.old, new, acknowledged=number >= told)
            count[fault.partition(":")[0]] += 1
            if fault not in ("old", "new"):
                wrong.append(f"cut {number} ({way}): {fault}")
    return count, wrong


def write(disk: Disk, way: str, chance: random.Random, path: Path) -> Path:
    shutil.rmtree(path, ignore_errors=True)
    return lay_out(disk.left(way, chance), path / ".pv")


def lay_out(left: dict[str, bytes | None], root: Path) -> Path:
    for name, data in left.items():
        path = root / name if name else root
        if data is None:
            path.mkdir(parents=True, exist_ok=True)
        else:
            path.write_bytes(data)
    return root


def judge(root: Path, old: dict[str, object], new: dict[str, object], *, acknowledged: bool) -> str:
    """ "old" or "new", or what is wrong."""
    try:
        report = fsck.check(root)
        if not report.clean:
            return f"damage: {report.damage[0]}"
        found = state(root)
        with Registry(root) as registry:
            recover(registry)
            if state(root) != found or not fsck.check(root).clean:
                return "changed: by recovery"
    except PvError as error:
        return f"unreadable: {error}"
    if found not in (old, new):
        return f"neither: {found}"
    if acknowledged and found != new:
        return "lost: it had been acknowledged"
    return "new" if found == new else "old"


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("action", ["commit", "merge", "undo", "gc"])
def test_old_or_new_after_a_power_cut(world: World, tmp_path: Path, full: bool, action: str) -> None:
    line = [*world.action(action), *([] if action == "commit" else ["--json"])]
    recording = trace(world, tmp_path, line)
    count, wrong = cuts(recording, tmp_path, None if full else QUICK)
    print(f"{action}: {sum(count.values())} states after a cut: {dict(count)}")
    assert wrong == []
    assert action == "gc" or (count["old"] and count["new"])


@needs_strace
@pytest.mark.slow
@pytest.mark.parametrize("patch", [NO_FOLDERS, NO_BYTES], ids=["folders", "bytes"])
def test_without_its_syncs_it_would_fail(world: World, tmp_path: Path, patch: str) -> None:
    """The commit again, with one kind of sync left out: the cuts find out."""
    recording = trace(world, tmp_path, world.action("commit"), patch)
    count, wrong = cuts(recording, tmp_path, QUICK)
    print(f"{len(wrong)} of {sum(count.values())} states are wrong: {dict(count)}")
    assert wrong


@needs_strace
@pytest.mark.slow
def test_a_registry_that_is_begun_is_there_or_not(world: World, tmp_path: Path, full: bool) -> None:
    """`pv init` with a pinned base: at every cut there is a whole registry, or none; after its answer, one."""
    home = tmp_path / "home"
    home.mkdir()
    line: list[str | Path] = ["init", "--base", world.base, "--threads", "1", "--json"]
    calls = traced(home, tmp_path, line)
    shutil.rmtree(home / ".pv")
    disk, chance = Disk(home), random.Random(SEED)
    told = max(n for n, call in enumerate(calls) if call.name == "write" and call.fd == 1)
    points = [n for n, call in enumerate(calls) if disk.replay(call)]
    near = [n for n in points if n > points[-1] - 8]
    chosen = set(points if full else [*points[::40], *near]) | {len(calls) - 1}
    disk, count = Disk(home), Counter[str]()
    for number, call in enumerate(calls):
        disk.replay(call)
        if number not in chosen:
            continue
        for way in WAYS:
            shutil.rmtree(tmp_path / "left", ignore_errors=True)
            lay_out(disk.left(way, chance), tmp_path / "left")
            there = (tmp_path / "left" / ".pv").exists()
            count["whole" if there else "none"] += 1
            if there:
                assert fsck.check(tmp_path / "left" / ".pv").findings == (), (number, way)
            assert there or number < told, (number, way)
    print(f"init: {dict(count)}")
    assert count["none"] and count["whole"]
