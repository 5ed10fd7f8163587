"""Long work in one terminal, everything else in another: real processes, stopped in the middle of their work.

While `train`, `commit`, `compress` or `steer extract` stands still, other processes switch, commit and collect garbage.
None of them may wait for it (it holds no lock), and it lands on the branch on which it began, with packs that no gc
took.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.commands import InProcess, Processes, Said, World
from support.steering import add_steering

from pv.registry.registry import Registry

Tips = Callable[[Path], dict[str, str]]
AT_ONCE = ("gc", "--grace", "0", "--expire", "0")


@pytest.fixture
def tips(process: Processes) -> Tips:
    """{branch: commit} of a registry."""

    def read(folder: Path) -> dict[str, str]:
        said = process("branch", "--json", at=folder)
        found: dict[str, str] = said.json["branches"]
        return found

    return read


def ok(process: Processes, *arguments: str | Path, at: Path) -> None:
    said = process(*arguments, at=at)
    assert said.code == 0, (arguments, said)


def parent(process: Processes, commit: str, at: Path) -> str:
    found: str = process("show", commit, "--json", at=at).json["parents"][0]
    return found


def written(folder: Path) -> Callable[[], bool]:
    """True once something of some size is being written to the registry."""
    tmp = folder / ".pv" / "tmp"
    return lambda: any(_size(path) for path in tmp.rglob("*"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() and path.name != "lock" else 0
    except FileNotFoundError:
        return 0


def landed(process: Processes, answer: Said, before: dict[str, str], tips: Tips, at: Path) -> None:
    """On b and nowhere else, on top of what b was; and what it needs outlives a gc."""
    assert answer.code == 0, answer
    after = tips(at)
    assert {**after, "b": before["b"]} == before
    assert parent(process, after["b"], at) == before["b"]
    ok(process, *AT_ONCE, at=at)
    ok(process, "fsck", "--deep", at=at)


def test_a_commit_lands_where_it_began(big: World, process: Processes, tips: Tips) -> None:
    at = big.folder
    ok(process, "switch", "-c", "b", at=at)
    with process.frozen("commit", big.tuned, "--as", "second", when=written(at), at=at) as answer:
        ok(process, "switch", "main", at=at)
        ok(process, "scale", "first", "0.5", at=at)
        ok(process, *AT_ONCE, at=at)
        ok(process, "branch", "c", at=at)
        before = tips(at)
    landed(process, answer[0], before, tips, at)
    assert process("show", "b", "--json", at=at).json["persona"]["behaviours"].keys() == {"first", "second"}


def test_a_compression_lands_where_it_began(big: World, process: Processes, tips: Tips) -> None:
    at = big.folder
    ok(process, "switch", "-c", "b", at=at)
    with process.frozen("compress", "first", "--to", "int8", "--force", when=written(at), at=at) as answer:
        ok(process, "switch", "main", at=at)
        ok(process, "scale", "first", "0.5", at=at)
        ok(process, *AT_ONCE, at=at)
        before = tips(at)
    landed(process, answer[0], before, tips, at)


def test_a_training_lands_where_it_began(world: World, process: Processes, tips: Tips) -> None:
    """Stopped when its vector has been written and is being measured: no commit names the pack yet."""
    at, packs = world.folder, world.folder / ".pv" / "packs"
    ok(process, "switch", "-c", "b", at=at)
    known = set(packs.rglob("*"))

    def new() -> set[Path]:
        return {path for path in set(packs.rglob("*")) - known if path.is_file()}

    def measuring() -> bool:
        return bool(new()) and any((at / ".pv" / "tmp").glob("build.*/*/*.safetensors"))

    line = ("train", world.rows, "--as", "x", "--epochs", "3", "--threads", "1")
    with process.frozen(*line, when=measuring, at=at) as answer:
        held = new()
        ok(process, "switch", "main", at=at)
        ok(process, "scale", "listening", "0.5", at=at)
        for _ in range(2):  # the second would delete what the first put into quarantine
            ok(process, *AT_ONCE, at=at)
        assert held and all(path.is_file() for path in held)
        before = tips(at)
    landed(process, answer[0], before, tips, at)


def steering(process: Processes, revision: str, at: Path) -> dict[str, float]:
    """{steering term: coefficient} of a revision."""
    persona = process("show", revision, "--json", at=at).json["persona"]
    return {name: term["coefficient"] for name, term in persona["steering"]["terms"].items()}


def at_work(at: Path) -> Callable[[], bool]:
    """True once a process has begun on a persona with a steering vector: it holds the vector's pack."""
    with Registry.find(at) as registry:
        vector = add_steering(registry, "formal", 1).vector
    return lambda: registry.packs.in_use(vector)


def test_a_steering_vector_lands_where_it_began(world: World, process: Processes, tips: Tips) -> None:
    at = world.folder
    when = at_work(at)
    ok(process, "switch", "-c", "b", at=at)
    with process.frozen(
        "steer", "extract", world.rows, "--as", "late", "--threads", "1", when=when, at=at
    ) as answer:
        ok(process, "switch", "main", at=at)
        ok(process, "steer", "set", "formal", "2", at=at)
        ok(process, "scale", "listening", "0.5", at=at)
        ok(process, "revert", "HEAD~1", at=at)
        ok(process, *AT_ONCE, at=at)
        before = tips(at)
    landed(process, answer[0], before, tips, at)
    terms = {name: steering(process, name, at) for name in ("main", "b")}
    assert terms == {"main": {"formal": 1}, "b": {"formal": 1, "late": 1}}


def test_both_steer_one_branch(world: World, process: Processes, tips: Tips) -> None:
    """The next version of a term keeps the coefficient that it was given meanwhile."""
    at = world.folder
    when = at_work(at)
    line = ("steer", "extract", world.rows, "--as", "formal", "--threads", "1")
    with process.frozen(*line, when=when, at=at) as answer:
        ok(process, "steer", "set", "formal", "2", at=at)
        before = tips(at)["main"]
    assert answer[0].code == 0, answer
    assert parent(process, tips(at)["main"], at) == before
    assert steering(process, "main", at) == {"formal": 2}
    ok(process, "fsck", at=at)


def test_both_commit_to_one_branch(big: World, process: Processes, tips: Tips) -> None:
    """What was committed meanwhile is not lost: the edit is applied to the newest persona."""
    at = big.folder
    with process.frozen("commit", big.tuned, "--as", "second", when=written(at), at=at) as answer:
        ok(process, "scale", "first", "0.25", at=at)
        before = tips(at)["main"]
    assert answer[0].code == 0, answer
    assert parent(process, tips(at)["main"], at) == before
    behaviours = process("show", "--json", at=at).json["persona"]["behaviours"]
    assert (behaviours["first"]["weight"], behaviours["second"]["weight"]) == (0.25, 1)


def test_the_branch_is_deleted_meanwhile(big: World, process: Processes) -> None:
    at = big.folder
    ok(process, "switch", "-c", "b", at=at)
    with process.frozen("commit", big.tuned, "--as", "second", when=written(at), at=at) as answer:
        ok(process, "switch", "main", at=at)
        ok(process, "branch", "-d", "b", at=at)
    assert answer[0].code == 5, answer
    assert "branch 'b' is gone" in answer[0].err and "pv branch b " in answer[0].err
    ok(process, "fsck", at=at)


def test_two_that_build_one_thing_both_have_it(process: Processes, world: World, pv: InProcess) -> None:
    """Whoever comes second finds what it was about to write, and need not be told to --force it."""
    out = world.folder / "out"

    def begun() -> bool:
        return any(world.folder.glob(".out.*.pvtmp/*"))

    with process.frozen("build", "-o", "out", "--threads", "1", when=begun, at=world.folder) as answer:
        first = pv.ok("build", "-o", "out", "--threads", "1", at=world.folder)
    (second,) = answer
    assert second.code == 0 and "already built" in second.err, second
    assert first.out == second.out
    assert [path for path in world.folder.iterdir() if path.name.startswith(".out")] == []
    assert out.is_dir()
