"""An interrupted build is gone on with: the same bytes as a cold one, and nothing of what it left is believed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TESTS
from support.vectors import World, behaviour, files_below

from pv.registry.errors import IntegrityError, UsageError
from pv.registry.persona import Persona
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id

TENSORS = 9


def recipe(world: World, weight: float = 0.7) -> Persona:
    return world.of({"x": behaviour(weight, world.a), "y": behaviour(0.4, world.exact)})


def interrupted(
    world: World,
    after: int,
    *,
    weight: float = 0.7,
    shard_bytes: int = 1000,
    threads: int = 1,
    force: bool = False,
) -> str:
    """Ctrl-C, as soon as so many tensors are done; what is said of it."""
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        world.build(
            recipe(world, weight), threads=threads, shard_bytes=shard_bytes, progress=progress, force=force
        )
    return " ".join(getattr(caught.value, "__notes__", []))


def left(world: World) -> list[Path]:
    return sorted(world.out.glob(".out.*.pvtmp"))


def bytes_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("shard_bytes", [1000, 1 << 30])
@pytest.mark.parametrize("after", range(TENSORS + 1))
def test_the_same_bytes_as_a_cold_build(world: World, after: int, shard_bytes: int, threads: int) -> None:
    said = interrupted(world, after, shard_bytes=shard_bytes, threads=threads)
    assert not (world.out / "out").exists()
    kept = len(left(world))
    assert kept == 1 or after == 0
    assert ("the same command goes on" in said) == bool(kept)
    made = world.build(recipe(world), shard_bytes=shard_bytes)
    assert made.resumed >= after  # and what other threads had done
    cold = world.build(recipe(world), "cold", shard_bytes=shard_bytes)
    assert cold.resumed == 0
    assert (made.weights, made.files, made.touched, made.changed) == (
        cold.weights,
        cold.files,
        cold.touched,
        cold.changed,
    )
    assert bytes_in(world.out / "out") == bytes_in(world.out / "cold")
    assert left(world) == []


def test_interrupted_again_and_again(world: World) -> None:
    for after in (2, 3, 5, 5, 8):
        interrupted(world, after)
        assert len(left(world)) == 1
    made = world.build(recipe(world), shard_bytes=1000)
    assert made.resumed >= 8
    assert bytes_in(world.out / "out") == bytes_in(_cold(world))


def _cold(world: World) -> Path:
    world.build(recipe(world), "cold", shard_bytes=1000)
    return world.out / "cold"


def _each(change: Callable[[Path], object]) -> Callable[[Path], object]:
    """In every weight file of an unfinished folder."""
    return lambda folder: [change(file) for file in (folder / "new").iterdir()]


def _flip(path: Path) -> None:
    """A bit of every hundred bytes."""
    data = bytearray(path.read_bytes())
    for at in range(8, len(data), 100):
        data[at] ^= 4
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": _each(_flip),
    "emptied": _each(lambda file: os.truncate(file, 0)),
    "cut": _each(lambda file: os.truncate(file, file.stat().st_size // 2)),
    "longer": _each(lambda file: file.write_bytes(file.read_bytes() + b"x" * 99)),
    "gone": _each(os.unlink),
    "no folder": lambda folder: (folder / "new").rename(folder / "elsewhere"),
    "a stranger": lambda folder: (folder / "new" / "adapter_config.json").write_text("{}"),
    "a strange folder": lambda folder: (folder / "new" / "deep").mkdir(),
    "a torn journal": lambda folder: os.truncate(
        folder / "journal", (folder / "journal").stat().st_size - 30
    ),
    "a strange journal": lambda folder: (folder / "journal").write_bytes(b'\xff\x00[1,2]\n["a"]\nnull\n{}'),
    "no journal": lambda folder: (folder / "journal").unlink(),
    "no lock": lambda folder: (folder / "lock").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_left_is_not_believed(world: World, damage: str) -> None:
    interrupted(world, 6)
    (folder,) = left(world)
    DAMAGES[damage](folder)
    world.build(recipe(world), shard_bytes=1000)
    assert bytes_in(world.out / "out") == bytes_in(_cold(world))
    assert left(world) == []


def test_a_journal_of_other_work_says_nothing(world: World) -> None:
    """Its tensors have the same names; their ids are another build's, and so would its bytes be."""
    interrupted(world, 6, weight=0.1)
    (other,) = left(world)
    journal, files = (other / "journal").read_bytes(), bytes_in(other / "new")
    interrupted(world, 2)
    (folder,) = left(world)
    (folder / "journal").write_bytes(journal)
    for name, data in files.items():
        (folder / "new" / name).write_bytes(data)
    made = world.build(recipe(world), shard_bytes=1000)
    assert made.resumed == 0
    assert bytes_in(world.out / "out") == bytes_in(_cold(world))


def test_work_on_something_else_is_swept(world: World) -> None:
    interrupted(world, 4)
    (first,) = left(world)
    interrupted(world, 4, weight=0.5)
    (second,) = left(world)
    assert first != second
    interrupted(world, 4, weight=0.5, shard_bytes=500)  # the same weights, in other files
    assert left(world) != [second] and len(left(world)) == 1
    world.build(recipe(world, 0.1))
    assert left(world) == []


def test_work_on_another_folder_is_left_alone(world: World) -> None:
    """Even if one name begins as the other does."""
    interrupted(world, 4)
    before = files_below(world.out)
    for other in ("ou", "out2", "out.x", "o" * 100, "o" * 101):
        world.build(recipe(world, 0.1), other)
    assert before <= files_below(world.out)
    interrupted(world, 4, weight=0.3)
    (mine,) = left(world)
    theirs = mine.with_name(mine.name.replace(".out.", ".out.x."))
    mine.rename(theirs)
    world.build(recipe(world, 0.1))
    assert theirs.is_dir()


def test_an_error_leaves_nothing_of_what_an_interrupt_left(world: World) -> None:
    interrupted(world, 4)
    with pytest.raises(RuntimeError):
        world.build(recipe(world), shard_bytes=1000, progress=_fail)
    assert files_below(world.out) == set()


def _fail(done: int, total: int) -> None:
    if done:
        raise RuntimeError


def test_a_folder_that_came_meanwhile_stays(world: World) -> None:
    interrupted(world, 4)
    world.build(recipe(world, 0.1), force=True)
    interrupted(world, 4, force=True)
    before = bytes_in(world.out / "out")
    with pytest.raises(UsageError, match="not empty"):
        world.build(recipe(world), shard_bytes=1000)
    assert bytes_in(world.out / "out") == before
    made = world.build(recipe(world), shard_bytes=1000, force=True)
    assert made.resumed >= 4


def test_a_link_in_its_place_is_not_followed(world: World) -> None:
    interrupted(world, 4)
    (folder,) = left(world)
    treasure = world.out / "treasure"
    folder.rename(treasure)
    before = {name: (treasure / name).stat().st_mtime_ns for name in files_below(treasure)}
    folder.symlink_to(treasure)
    world.build(recipe(world), shard_bytes=1000)
    assert {name: (treasure / name).stat().st_mtime_ns for name in files_below(treasure)} == before


# Real processes

SCRIPT = """
import os, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.vectors import base_at, behaviour, persona
from pv.registry.disk import durable
from pv.registry.packs.store import PackStore
from pv.vecstore.merge.build import build
from pv.vecstore.vectors.vector import open_vector
_, _, base, root, vector, out, stop, how = sys.argv
left = int(stop) if stop.isdigit() else 1000
def fault(label):
    global left
    left = left - 1 if label != stop else -1
    if left < 0 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if left < 0 and how == "wait":
        print("waiting", flush=True)
        time.sleep(100)
durable.fault = fault
packs = PackStore(Path(root))
with base_at(Path(base)) as base, open_vector(vector, base, packs) as opened:
    made = build(persona(base, {"x": behaviour(0.7, vector)}), base, {vector: opened}, Path(out), side_files={},
                 shard_bytes=1000, threads=2, force=True)
print(made.resumed, made.weights, flush=True)
"""


def _process(world: World, stop: int | str, how: str = "kill") -> subprocess.Popen[str]:
    assert world.base.checkpoint is not None
    arguments = [
        TESTS, world.base.checkpoint.path, world.packs.tmp.parent, world.a, world.out / "out", stop, how,
    ]  # fmt: skip
    command = [sys.executable, "-W", "error", "-c", SCRIPT, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_at_every_step(world: World) -> None:
    """Each process is killed one step further on; a folder appears whole, and in the end with the right bytes."""
    wanted = world.build(world.of({"x": behaviour(0.7, world.a)}), "cold", shard_bytes=1000)
    resumed = []
    for stop in range(0, 40, 2):
        with _process(world, stop) as process:
            out, err = process.communicate()
        assert process.returncode in (0, -9), err
        if (world.out / "out").exists():
            with Checkpoint(world.out / "out") as found:
                assert table_id(fingerprint(found)) == wanted.weights
        if process.returncode == 0:
            resumed.append(int(out.split()[0]))
            assert left(world) == []
            break
    assert resumed and resumed[0] >= TENSORS - 2
    assert bytes_in(world.out / "out") == bytes_in(world.out / "cold")


def test_two_processes_that_build_the_same(world: World) -> None:
    """The second has a folder of its own; what the first leaves when it is killed, a third goes on with."""
    with _process(world, 5, "wait") as first:
        assert first.stdout is not None and first.stdout.readline() == "waiting\n"
        with _process(world, 1000) as second:
            out, err = second.communicate()
        assert second.returncode == 0, err
        assert out.startswith("0 ")
        assert len(left(world)) == 1  # which is the first one's, who is at work
        first.kill()
    with _process(world, 1000) as third:
        out, err = third.communicate()
    assert third.returncode == 0, err
    assert int(out.split()[0]) >= 3
    assert left(world) == []


def test_killed_between_the_two_renames(world: World) -> None:
    """What was there before is back, when anything is built there again."""
    world.build(recipe(world, 0.1))
    before = bytes_in(world.out / "out")
    with _process(world, "old aside") as process:
        process.communicate()
    assert process.returncode == -9
    assert not (world.out / "out").exists()
    with pytest.raises(UsageError, match="not empty"):
        world.build(recipe(world, 0.2))
    assert bytes_in(world.out / "out") == before
    assert left(world) == []


def test_infinite_weights_leave_nothing(world: World) -> None:
    interrupted(world, 3)
    with pytest.raises(IntegrityError):
        world.build(world.of({"x": behaviour(1e38, world.a)}))
    assert files_below(world.out) == set()
