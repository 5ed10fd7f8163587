"""Edits done twice, edits of several names at once, and what is recorded of them."""

from __future__ import annotations

import shlex

from support.commands import InProcess, World, behaviours, commits

TIES = "ties (density 0.2, elect unweighted, merge mean, lambda 1)"


# Doing it twice


def test_what_is_so_already_is_no_error(terse: None, world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5")
    pv.ok("combine", "ties")
    pv.ok("config", "output.dtype", "bf16")
    before = world.state()
    for words in (
        ("scale", "listening", "0.5"),
        ("combine", "ties", "--density", "0.2"),
        ("config", "output.dtype", "bf16"),
        ("config", "combine.method", "ties"),
        ("config", "combine.density", "0.2"),
        ("config", "output.seed", "0"),
        ("config", "engine", "2"),
    ):
        said = pv.ok(*words)
        assert "already: nothing to commit" in said.err, said
        found = pv.ok(*words, "--json").json
        assert (found["changed"], found["changes"]) == (False, [])
        assert found["commit"] == pv.ok("status", "--json").json["commit"]
    assert world.state() == before
    assert pv.ok("scale", "listening", "0.25", "--json").json["changed"] is True
    assert pv("drop", "nobody").code == 5


# Several names, and another one


def test_several_are_dropped_or_negated_in_one_commit(world: World, pv: InProcess) -> None:
    pv.ok("add", "a=HEAD:listening")
    pv.ok("add", "b=HEAD:listening", "--weight", "2")
    before = len(commits(pv))
    said = pv.ok("negate", "a", "b")
    assert behaviours(pv) == {"listening": 1, "a": -1, "b": -2}
    assert "~ a  weight 1 -> -1\n~ b  weight 2 -> -2\n" in said.err, said
    pv.ok("drop", "listening", "a", "-m", "Only b")
    assert behaviours(pv) == {"b": -2}
    assert len(commits(pv)) == before + 2
    state = world.state()
    for words, code, hint in (
        (("drop", "b", "b"), 2, "named twice"),
        (("negate", "b", "b"), 2, "named twice"),
        (("drop", "b", "nobody"), 5, "it has: b"),
        (("negate", "nobody", "b"), 5, "it has: b"),
        (("drop",), 2, "NAME"),
    ):
        said = pv(*words)
        assert (said.code, hint in said.err) == (code, True), said
    assert world.state() == state


def test_rename(world: World, pv: InProcess) -> None:
    before = pv.ok("status", "--json").json["persona"]["behaviours"]["listening"]
    said = pv.ok("rename", "listening", "ears")
    assert pv.ok("status", "--json").json["persona"]["behaviours"] == {"ears": before}
    assert "+ ears 1\n- listening 1\n" in said.err
    assert commits(pv, "-n", "1")[0]["message"].strip() == "Rename listening to ears"
    pv.ok("add", "more=HEAD:ears")
    for words, code, hint in (
        (("rename", "listening", "x"), 5, "it has: ears, more"),
        (("rename", "ears", "more"), 2, "pv drop more"),
        (("rename", "ears", "a/b"), 2, "cannot name a behaviour"),
        (("rename", "ears"), 2, "NEW"),
    ):
        said = pv(*words)
        assert (said.code, hint in said.err) == (code, True), said


# What is recorded is what was typed


def test_operations_are_recorded_as_typed(terse: None, pv: InProcess) -> None:
    for words in (
        ("branch", "side", "HEAD~1"),
        ("branch", "-d", "side"),
        ("tag", "v2", "HEAD~1"),
        ("tag", "-d", "v2"),
        ("switch", "terse"),
        ("switch", "-c", "third", "v1"),
        ("merge", "terse", "--method", "ties"),
        ("revert", "HEAD", "-m", "1"),
        ("cherry-pick", "terse"),
    ):
        pv.ok(*words)
        assert pv.ok("undo", "--json").json["undone"].endswith(f" {shlex.join(words)}")
        pv.ok("redo")


# Help and words


def test_help_gives_the_defaults_of_ties(pv: InProcess) -> None:
    for command in ("merge", "combine"):
        text = " ".join(pv.ok(command, "--help").out.split())
        for words in ("default: 0.2", "default: unweighted", "default: mean", "default: 1)"):
            assert words in text


def test_combine_without_a_method_says_which_is_in_use(world: World, pv: InProcess) -> None:
    assert pv.ok("combine").out == "add\n"
    pv.ok("combine", "ties")
    assert pv.ok("combine").out == f"{TIES}\n"
    found = pv.ok("combine", "--json").json
    assert (found["combine"]["method"], found["commit"]) == ("ties", pv.ok("status", "--json").json["commit"])
    for words, hint in (
        (("--density", "0.3"), "combine ties --density 0.3\n"),
        (("--preset", "peft"), "combine ties --preset peft\n"),
        (("add", "--preset", "peft"), "that is a preset of ties"),
        (("add", "--density", "0.3"), "that is an option of ties"),
    ):
        said = pv("combine", *words)
        assert (said.code, hint in said.err) == (2, True), said
