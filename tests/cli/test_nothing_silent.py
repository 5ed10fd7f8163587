"""What a merge, a revert or a pick changes is said; what was asked for is done or refused; hints lead to an end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable

import pytest
from support.commands import InProcess, Said, World, behaviours, commits

TIES = "ties (density 0.2, elect unweighted, merge mean, lambda 1)"
Names = tuple[str, ...]


@pytest.fixture
def disputed(terse: None, pv: InProcess) -> Callable[[int], Names]:
    """`disputed(3)`: behaviours a, b and c, which `exp` and main gave different weights."""

    def make(count: int) -> Names:
        names = tuple("abcd"[:count])
        for name in names:
            pv.ok("add", f"{name}=v1:listening")
        pv.ok("switch", "-c", "exp")
        for name in names:
            pv.ok("scale", name, "0.5")
        pv.ok("switch", "main")
        for name in names:
            pv.ok("scale", name, "2")
        return names

    return make


@pytest.fixture
def versions(terse: None, pv: InProcess) -> tuple[str, str]:
    """On main and on `exp`, listening is another vector each: (ours, theirs)."""
    pv.ok("switch", "-c", "exp")
    pv.ok("compress", "listening", "--to", "sparse:0.3", "--force")
    pv.ok("switch", "main")
    pv.ok("compress", "listening", "--to", "sparse:0.5", "--force")
    return vector(pv, "main"), vector(pv, "exp")


def vector(pv: InProcess, rev: str = "HEAD", name: str = "listening") -> str:
    persona = pv.ok("show", rev, "--json").json["persona"]
    found: str = persona["behaviours"][name]["terms"][0][1][:12]
    return found


def hinted(said: Said) -> list[str]:
    """The words of the command that a hint gives, less the `-C DIR` with which the tests call pv."""
    (line,) = re.findall(r"^       pv (.*)$", said.err, flags=re.MULTILINE)
    words = shlex.split(line)
    assert words[0] == "-C"
    return words[2:]


def follow(pv: InProcess, said: Said, at_most: int) -> Said:
    """Do what the hint says, until there is none."""
    for _ in range(at_most):
        if not said.code:
            break
        said = pv(*hinted(said))
    assert said.code == 0, said
    return said


# Hints are complete


TIES_OPTIONS = ("--method", "ties", "--density", "0.5", "--elect", "weighted")
PRESET_OPTIONS = ("--method", "ties", "--preset", "peft", "-m", 'it\'s one; "two" $three')


@pytest.mark.parametrize(
    ("count", "settled", "options"),
    [
        (1, False, ()),
        (2, True, ()),
        (3, False, TIES_OPTIONS),
        (3, True, PRESET_OPTIONS),
        (4, True, TIES_OPTIONS),
        (4, False, PRESET_OPTIONS),
    ],
)
def test_following_the_hint_of_a_merge_ends(
    disputed: Callable[[int], Names], pv: InProcess, count: int, settled: bool, options: Names
) -> None:
    names = disputed(count)
    takes = ("--take", "a=theirs") if settled else ()
    said = follow(pv, pv("merge", "exp", *takes, *options), 2)
    assert behaviours(pv) == {"listening": 1, **dict.fromkeys(names, 2), **({"a": 0.5} if settled else {})}
    (newest,) = commits(pv, "-n", "1")
    assert len(newest["parents"]) == 2
    persona = pv.ok("show", "--json").json["persona"]
    assert persona["combine"]["method"] == ("ties" if options else "add")
    assert persona["combine"].get("density") == (
        {"--density": 0.5, "--preset": 0.2}[options[2]] if options else None
    )
    assert ('it\'s one; "two" $three' in newest["message"]) == ("-m" in options)
    assert ("~ combine  add -> ties" in said.err) == bool(options)


def test_following_the_hint_of_a_revert_and_a_pick_ends(
    disputed: Callable[[int], Names], pv: InProcess
) -> None:
    disputed(3)
    pv.ok("merge", "exp", "--take", "a=theirs", "--take", "b=theirs", "--take", "c=theirs")
    for name in "abc":
        pv.ok("scale", name, "7")
    follow(pv, pv("revert", "HEAD~3", "-m", "1", "-m", "Not so", "--take", "b=theirs"), 2)
    assert behaviours(pv) == {"listening": 1, "a": 2, "b": 2, "c": 2}
    assert commits(pv, "-n", "1")[0]["message"].startswith("Not so\n\nThis takes back commit ")
    pv.ok("switch", "exp")
    pv.ok("scale", "a", "0.25", "-m", "Less of a")
    pv.ok("switch", "main")
    said = pv("cherry-pick", "exp", "--message", "Less")
    assert "theirs (the commit)  weight 0.25, vector" in said.err
    assert '(from "Less of a", Ada, ' in said.err
    words = hinted(said)
    assert words == ["cherry-pick", "exp", "--message", "Less", "--take", "a=theirs"]
    said = pv(*words)
    assert "~ a  weight 2 -> 0.25" in said.err


def test_a_hint_keeps_what_stands_before_the_command(
    disputed: Callable[[int], Names], world: World, pv: InProcess
) -> None:
    disputed(1)
    said = pv("-qC", world.folder, "--no-pager", "merge", "--", "exp")
    assert hinted(said) == [
        "-qC", str(world.folder), "--no-pager", "merge", "--take", "a=ours", "--", "exp",
    ]  # fmt: skip
    assert pv(*hinted(said)).code == 0


def test_a_hint_as_json_is_the_same_command(disputed: Callable[[int], Names], pv: InProcess) -> None:
    disputed(1)
    said = pv("merge", "exp", "--json")
    assert " merge exp --json --take a=ours\n" in f"{said.error['hint']}\n" and "pv -C " in said.error["hint"]
    (found,) = said.error["conflicts"]
    assert found["theirs_from"]["subject"] == "Scale a to 0.5"
    assert found["theirs_from"]["commit"] == pv.ok("branch", "--json").json["branches"]["exp"]
    assert found["ours_from"]["author"] == "Ada"


def test_both_versions_can_be_kept(versions: tuple[str, str], pv: InProcess) -> None:
    ours, theirs = versions
    said = pv("merge", "exp")
    assert f"    ours    weight 1, vector {ours} (from " in said.err
    assert f"    theirs  weight 1, vector {theirs} (from " in said.err
    (both,) = re.findall(r"to keep both, choose ours, then: pv (.*)$", said.err, flags=re.MULTILINE)
    pv.ok(*hinted(said))
    pv.ok(*shlex.split(both))
    assert (vector(pv), vector(pv, name="listening-2")) == (ours, theirs)


# Whose vector a weight is of


def test_a_bare_weight_is_refused_where_the_vectors_differ(
    versions: tuple[str, str], world: World, pv: InProcess
) -> None:
    ours, theirs = versions
    before = world.state()
    said = pv("merge", "exp", "--take", "listening=0.5")
    assert (said.code, world.state()) == (2, before)
    assert f"ours is weight 1, vector {ours}; theirs is weight 1, vector {theirs}" in said.err
    assert "--take 'listening=theirs*0.5'" in said.err
    said = pv.ok("merge", "exp", "--take", "listening=theirs*0.5")
    assert f"~ listening  weight 1 -> 0.5, vector {ours} -> {theirs}" in said.err
    assert (vector(pv), behaviours(pv)) == (theirs, {"listening": 0.5})


# What changes is said


def test_a_merge_that_brings_another_rule_says_so(terse: None, pv: InProcess) -> None:
    pv.ok("add", "more=main:listening", "--weight", "3")
    pv.ok("combine", "ties")
    pv.ok("config", "output.dtype", "fp32")
    pv.ok("switch", "terse")
    pv.ok("scale", "listening", "0.25")
    said = pv.ok("merge", "main")
    for line in ("+ more 3", f"~ combine  add -> {TIES}", "~ output.dtype  base -> fp32"):
        assert line in said.err.splitlines()
        assert line in pv.ok("show").out.splitlines()
    found = pv.ok("show", "--json").json["changes"]
    assert [(one["name"], one["kind"]) for one in found] == [
        ("more", "behaviour"), ("combine", "field"), ("output.dtype", "field"),
    ]  # fmt: skip
    said = pv.ok("undo")
    for line in ("- more 3", f"~ combine  {TIES} -> add", "~ output.dtype  fp32 -> base"):
        assert line in said.err.splitlines()
    assert pv.ok("redo", "--json").json["changes"] == found
    pv.ok("undo")
    assert pv.ok("merge", "main", "--json").json["changes"] == found
    said = pv.ok("revert", "HEAD", "-m", "1")
    for line in ("- more 3", f"~ combine  {TIES} -> add", "~ output.dtype  fp32 -> base"):
        assert line in said.err.splitlines()
    pv.ok("combine", "ties")
    pv.ok("switch", "-c", "other", "v1")
    said = pv.ok("cherry-pick", "terse")
    assert f"~ combine  add -> {TIES}" in said.err


def test_a_fast_forward_that_brings_another_rule_says_so(terse: None, pv: InProcess) -> None:
    pv.ok("switch", "terse")
    pv.ok("combine", "ties")
    pv.ok("switch", "main")
    said = pv.ok("merge", "terse", "-m", "Bring it")
    assert f"~ combine  add -> {TIES}" in said.err
    assert "~ listening  weight 1 -> 0.5" in said.err
    assert "no commit was made, so the message is not used" in said.err


def test_a_new_version_is_told_from_the_old_one(versions: tuple[str, str], pv: InProcess) -> None:
    ours, theirs = versions
    line = f"~ listening  vector {ours} -> {theirs}\n"
    assert pv.ok("diff", "main", "exp", "--recipe").out == line
    assert line in pv.ok("diff", "main", "exp").out
    assert "~ listening  vector " in pv.ok("show").out
    (found,) = pv.ok("diff", "main", "exp", "--recipe", "--json").json["changes"]
    assert found["before"]["terms"] != found["after"]["terms"]


def test_a_diff_is_in_words(terse: None, pv: InProcess) -> None:
    pv.ok("combine", "ties", "--density", "0.3")
    pv.ok("config", "output.rounding", "nearest")
    assert pv.ok("diff", "v1", "HEAD", "--recipe").out.splitlines() == [
        f"~ combine  add -> {TIES.replace('0.2', '0.3')}",
        "~ output.rounding  stochastic -> nearest",
    ]
    pv.ok("config", "combine.density", "0.5")
    assert pv.ok("diff", "--recipe").out == "~ combine  ties: density 0.3 -> 0.5\n"


# What cannot be applied is refused


def test_up_to_date_swallows_no_option(terse: None, world: World, pv: InProcess) -> None:
    pv.ok("merge", "terse")
    before = world.state()
    for options, words in (
        (("terse", "--method", "ties", "--density", "0.3"), "pv combine ties --density 0.3"),
        (("HEAD~1", "--method", "ties"), "nothing to combine anew"),
        (("main", "--method", "ties"), "nothing to combine anew"),
        (("terse", "--take", "listening=0.8"), "pv scale listening 0.8"),
        (("terse", "--take", "listening=theirs"), "--take listening=theirs has nothing to settle"),
        (("terse", "--take", "nobody=theirs"), "nothing to settle"),
    ):
        said = pv("merge", *options)
        assert (said.code, "✓" in said.err) == (2, False), options
        assert words in said.err, options
    assert world.state() == before
    said = pv.ok("merge", "terse", "--method", "add", "-m", "Again")
    assert "already up to date" in said.err
    assert "the message is not used" in said.err


def test_a_choice_that_chooses_nothing_is_refused(
    disputed: Callable[[int], Names], world: World, pv: InProcess
) -> None:
    disputed(1)
    before = world.state()
    for takes in (("listening=ours",), ("a=ours", "combine=theirs"), ("a=ours", "listening=theirs")):
        said = pv("merge", "exp", *(word for take in takes for word in ("--take", take)))
        assert (said.code, "there is nothing to choose" in said.err) == (2, True), said
    for verb in ("revert", "cherry-pick"):
        said = pv(verb, "HEAD", "--take", "listening=theirs")
        assert (said.code, "there is nothing to choose" in said.err) == (2, True), said
    assert world.state() == before


# A reverted merge


def test_a_merge_that_was_reverted_says_how_it_comes_back(terse: None, pv: InProcess) -> None:
    pv.ok("add", "more=main:listening")
    merge = pv.ok("merge", "terse", "--json").json["commit"]
    revert = pv.ok("revert", "HEAD", "-m", "1", "--message", "Too early", "--json").json["commit"]
    said = pv.ok("merge", "terse")
    assert "already up to date" in said.err
    line = f"terse was merged in {merge[:12]} and reverted in {revert[:12]}; `pv revert {revert[:12]}` brings it back"
    assert line in said.err
    found = pv.ok("merge", "terse", "--json").json
    assert (found["kind"], found["changed"], found["changes"], found["notes"]) == (
        "up-to-date",
        False,
        [],
        [line],
    )
    pv.ok("switch", "terse")
    pv.ok("add", "new=main:more")
    pv.ok("switch", "main")
    assert f"an earlier part of {line}" in pv.ok("merge", "terse").err
    assert behaviours(pv) == {"listening": 1, "more": 1, "new": 1}
    pv.ok("undo")
    pv.ok("revert", revert)
    assert behaviours(pv) == {"listening": 0.5, "more": 1}
    assert "reverted" not in pv.ok("merge", "terse").err
    assert behaviours(pv) == {"listening": 0.5, "more": 1, "new": 1}


# -m


def test_m_is_the_mainline_or_the_message(disputed: Callable[[int], Names], pv: InProcess) -> None:
    disputed(1)
    pv.ok("merge", "exp", "--take", "a=theirs")
    pv.ok("revert", "HEAD", "-m", "1", "-m", "Two for one")
    assert commits(pv, "-n", "1")[0]["message"].startswith("Two for one\n")
    pv.ok("undo")
    pv.ok("revert", "HEAD", "--mainline", "1", "-m", "Long")
    pv.ok("revert", "HEAD", "-m", "Back again")
    assert behaviours(pv)["a"] == 0.5
    pv.ok("revert", "HEAD", "--message", "7")
    assert commits(pv, "-n", "1")[0]["message"].startswith("7\n")
    for words, hint in (
        (("-m", "1", "-m", "hi"), "leave -m 1 out; a message that is a number is given with --message 1"),
        (("-m", "1", "-m", "2"), "-m with a number is the mainline"),
        (("-m", "one", "--message", "two"), "-m with a number is the mainline"),
        (("-m", "0"), "leave -m 0 out"),
    ):
        said = pv("revert", "HEAD", *words)
        assert (said.code, hint in said.err) == (2, True), said
        assert "integer range" not in said.err


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
