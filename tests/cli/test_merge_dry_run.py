"""pv merge --dry-run: what would be merged and how the behaviours interfere, and nothing is changed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import InProcess, Processes, World


def state(world: World) -> dict[str, bytes]:
    """Every file of the registry, but for notes of what was hashed."""
    registry = world.folder / ".pv"
    return {
        str(path.relative_to(registry)): path.read_bytes()
        for path in sorted(registry.rglob("*"))
        if path.is_file() and "cache" not in path.parts
    }


@pytest.fixture
def two(world: World, pv: InProcess) -> InProcess:
    """main with listening and, on a branch, another behaviour."""
    pv.ok("switch", "-c", "side")
    pv.ok("commit", world.tuned, "--as", "tuned")
    pv.ok("switch", "main")
    pv.ok("scale", "listening", "0.5")
    return pv


def test_it_says_what_merge_does_and_changes_nothing(two: InProcess, world: World) -> None:
    before = state(world)
    planned = two.ok("merge", "side", "--dry-run", "--json").json
    assert state(world) == before
    made = two.ok("merge", "side", "--json").json
    same = ("kind", "changes", "persona_id", "persona", "notes")
    assert {key: planned[key] for key in same} == {key: made[key] for key in same}
    assert planned["kind"] == "merge" and planned["dry_run"] is True


def test_the_report_is_of_the_persona_that_would_result(two: InProcess) -> None:
    found = two.ok("merge", "side", "-n", "--json").json["interference"]
    assert [one["name"] for one in found["behaviours"]] == ["listening", "tuned"]
    assert sum(one["share"] for one in found["behaviours"]) == pytest.approx(1)
    (pair,) = found["pairs"]
    two.ok("merge", "side")
    (after,) = two.ok("diff", "HEAD~1", "HEAD", "--weights", "--json").json["interference"]
    assert pair["cosine"] == pytest.approx(after["cosine"], abs=1e-6)
    assert pair["both"] == after["overlap"]
    assert pair["conflict"] == pytest.approx(1 - after["sign_agreement"])
    assert two.ok("merge", "HEAD", "-n", "--json").json["interference"] == found


def test_in_words(two: InProcess) -> None:
    said = two.ok("merge", "side", "--dry-run")
    assert "would be a merge of side; nothing was changed" in said.err
    for part in (
        "+ tuned",
        "opposite signs there",
        "unrelated",
        "by class of module",
        "total: norm",
        "recommended: ",
    ):
        assert part in said.out, part
    assert "kept" not in said.out  # add trims nothing
    trimmed = two.ok("merge", "side", "--dry-run", "--method", "ties", "--density", "0.3").out
    assert "ties trims each tensor to density 0.3" in trimmed and "squared norm kept" in trimmed
    assert "and: the persona combines with ties" in trimmed
    assert "total is what ties adds" in trimmed
    assert two.ok("config", "combine.method").out == "add\n"


def test_the_same_twice_is_warned_of(two: InProcess, world: World) -> None:
    two.ok("switch", "-c", "twice")
    two.ok("add", "again=HEAD:listening")
    two.ok("switch", "main")
    said = two.ok("merge", "twice", "-n")
    assert "would be a fast-forward of twice" in said.err
    assert "note: again is the same vector as listening" in said.err
    assert "recommended: again and listening are much the same change: cosine +1.00" in said.out
    two.ok("switch", "twice")
    two.ok("negate", "again")
    two.ok("switch", "main")
    found = two.ok("merge", "twice", "-n", "--json").json
    assert [one["kind"] for one in found["advice"]] == ["undo"]


def test_a_conflict_is_the_one_of_merge(conflict: None, world: World, pv: InProcess) -> None:
    planned, made = (pv("merge", "terse", *more, "--json") for more in (("-n",), ()))
    assert planned.code == made.code == 1
    assert planned.error["conflicts"] == made.error["conflicts"]
    assert "--take listening=ours" in pv("merge", "terse", "-n").err
    settled = pv.ok("merge", "terse", "-n", "--take", "listening=theirs", "--json").json
    assert settled["persona"]["behaviours"]["listening"]["weight"] == 0.5


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nope"], 5),
        (["main", "--take", "listening=ours"], 2),
        (["side", "--method", "ties", "--density", "2"], 2),
        (["side", "--take", "nobody=ours"], 2),
    ],
)
def test_what_merge_refuses(two: InProcess, words: list[str], code: int) -> None:
    assert two("merge", *words, "-n").code == two("merge", *words).code == code


def test_without_the_base(two: InProcess, world: World, tmp_path: Path) -> None:
    away = tmp_path / "away"
    shutil.copytree(world.base, away)
    found = two.ok("status", "--json").json
    pack = world.folder / ".pv" / "packs" / found["persona"]["base"][:2] / found["persona"]["base"]
    if pack.exists():
        pack.unlink()
    two.ok("base", "move", away)
    (away / "model.safetensors").unlink()
    moved = Path(shutil.move(world.base, tmp_path / "gone"))
    try:
        said: Any = two("merge", "side", "-n")
        assert said.code == 5 and "was not found at" in said.err
    finally:
        shutil.move(moved, world.base)


def test_no_registry(pv: InProcess) -> None:
    assert pv("merge", "side", "-n").code == 128


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits(two: InProcess, process: Processes, width: int) -> None:
    said = process.on_terminal(
        "merge", "side", "-n", "--method", "ties", env={"COLUMNS": str(width), "PV_PAGER": "cat"}
    )
    assert said.code == 0
    lines = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", said.out).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= width, [line for line in lines if len(line) > width]
