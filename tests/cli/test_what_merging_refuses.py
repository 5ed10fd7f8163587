"""What is wrong with a merge, a sum or a build, said so that the next thing typed is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import InProcess, World
from support.mergekit import document, make_models, write

REFUSED: dict[str, tuple[tuple[str, ...], str, str]] = {
    "a switch as an option": (
        ("combine", "dare", "--seed", "-1"), "No such option '--seed'.\n", "--set seed=0"),
    "a switch with a merge": (("merge", "exp", "--users", "3"), "No such option '--users'.\n", "--set users=2"),
    "--as where = goes": (("add", "v1:listening", "--as", "x"), "'--as'", "`pv add NAME=REV:BEHAVIOUR`"),
    "a factor behind": (
        ("add", "x=listening*2"), "the number 2 stands where a behaviour goes, at character 11", "2*NAME"),
    "a factor without a star": (("add", "x=2 listening"), "the number 2 stands", "with a star: 2*NAME"),
    "--depth none": (
        ("scale", "listening", "0.5", "--depth", "none"), "--depth takes points",
        "`pv scale listening 0.5 --modules none`"),
    "a factor that is none": (
        ("scale", "listening", "1", "--modules", "*mlp*=nan"), "--modules *mlp*=nan: a factor is", "for example"),
    "a factor in letters": (
        ("scale", "listening", "1", "--modules", "*mlp*=x"), "--modules *mlp*=x: 'x' is not a number", "for example"),
    "shard 0": (("build", "--shards", "0/3", "-o", "x"), "no shard 0 of 3: 1/3 is the first, 3/3 the last", ""),
    "far too many shards": (
        ("build", "--shards", "1/1000000", "-o", "x"), "cannot be written in 1000000 shards", "is the most"),
    "an operation without --to": (("undo", "3"), "unexpected extra argument (3)", "`pv undo --to 3` goes back"),
    "an output that is empty": (("build", "-o", ""), "a path is empty", "variable"),
    "switches of a method without any": (
        ("combine", "model_stock", "--set", "x=1"), "takes no option 'x'", "`pv combine model_stock`"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_with_what_is_right(world: World, pv: InProcess, case: str) -> None:
    arguments, message, hint = REFUSED[case]
    before = world.state()
    said = pv(*arguments)
    assert said.code == 2, said
    assert message in said.err and hint in said.err.partition("hint:")[2], said
    assert world.state() == before


def test_of_many_behaviours_the_first_are_named_and_the_others_counted(terse: None, pv: InProcess) -> None:
    for name in "abcdef":
        pv.ok("add", f"{name}=v1:listening")
    said = pv.ok("combine", "slerp")
    assert "7 have a weight here: a, b, c, d, e and 2 more" in said.err, said


def test_factors_that_differ_are_removed_as_the_hint_says(terse: None, pv: InProcess) -> None:
    pv.ok("add", "a=v1:listening")
    pv.ok("scale", "a", "0.5", "--modules", "*mlp*=2")
    said = pv("add", "sum=listening + a")
    assert "`pv scale a 0.5 --modules none`" in said.err, said
    pv.ok("scale", "a", "0.5", "--modules", "none")
    pv.ok("add", "sum=listening + a")


@pytest.mark.parametrize("rev", ["HEAD", "v1"])
def test_a_document_and_a_revision_are_one_too_many(
    made: World, tmp_path: Path, pv: InProcess, rev: str
) -> None:
    folder = make_models(made, tmp_path)
    write(folder, document())
    said = pv("build", rev, "--from-mergekit", "merge.yml", "-o", "out", at=folder)
    assert said.code == 2 and f"not {rev}" in said.err, said
    assert not (folder / "out").exists()


def test_a_revision_where_a_behaviour_is_exported(terse: None, pv: InProcess) -> None:
    said = pv("export", "v1", "-o", "x y")
    assert said.code == 5 and "'v1' is a revision, not a behaviour" in said.err, said
    assert "`pv export v1:listening -o 'x y'`" in said.err and "`pv build v1 -o 'x y'`" in said.err, said
    assert "no behaviour 'nope'" in pv("export", "nope", "-o", "x").err


def test_one_checkpoint_has_nothing_to_be_compared_with(made: World, tmp_path: Path, pv: InProcess) -> None:
    said = pv("diff", made.base, at=tmp_path)
    assert said.code == 128 and "is one checkpoint, and no .pv folder" in said.err, said
    assert f"pv diff {made.base} DIR" in said.err, said


def test_shards_of_another_build_are_said(terse: None, pv: InProcess) -> None:
    """Two commits, or two numbers of shards: each would wait for the other's for ever."""
    first = pv.ok("build", "v1", "--shards", "1/2", "-o", "out")
    assert "of another build" not in first.err
    pv.ok("scale", "listening", "0.5")
    second = pv.ok("build", "--shards", "2/2", "-o", "out")
    assert "1 weight file of another build waits there too" in second.err, second
    third = pv.ok("build", "v1", "--shards", "1/3", "-o", "out")
    assert "2 weight files of another build wait there too" in third.err, third
    last = pv.ok("build", "v1", "--shards", "2/2", "-o", "out")
    assert "another build" not in last.err, last


def test_status_says_that_a_build_will_be_refused(terse: None, pv: InProcess) -> None:
    assert "refused" not in pv.ok("status").err
    pv.ok("add", "a=v1:listening")
    pv.ok("combine", "slerp")
    pv.ok("branch", "here")
    assert (
        "a build of this will be refused: slerp combines the base with one behaviour" in pv.ok("status").err
    )
