"""Hints are whole commands: typed as they stand they do what was meant, and nothing is lost on the way."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from support.commands import InProcess, Said, World, behaviours, commits

from pv.registry.persona import Behaviour, Term
from pv.registry.words import behaviour_line


def command(said: Said) -> list[str]:
    """The words of the command that a hint gives."""
    hint = said.error["hint"] if said.err.startswith("{") else said.err.partition("\nhint: ")[2]
    (line,) = re.findall(r"(?:^|`)\s*(pv [^`\n]*)", hint)
    return shlex.split(line)


# Options on the wrong side of the command's name


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (("status", "-C", "DIR"), ("-C", "DIR", "status")),
        (("-q", "log", "-C", "DIR", "-n", "1"), ("-q", "-C", "DIR", "log", "-n", "1")),
        (("op", "log", "-C", "DIR"), ("-C", "DIR", "op", "log")),
        (("status", "-C"), ("-C", "VALUE", "status")),
        (("log", "--no-pager", "main"), ("--no-pager", "log", "main")),
        (("--json", "status"), ("status", "--json")),
        (("-q", "--json", "log", "-n", "1"), ("-q", "log", "-n", "1", "--json")),
        (("--json", "op", "log"), ("op", "log", "--json")),
        (("--limit", "3", "log"), None),
        (("-n", "3", "log"), ("log", "-n", "3")),
        (("--grep=x", "log"), ("log", "--grep=x")),
        (("--json", "scale", "x", "--", "-1"), ("scale", "--json", "x", "--", "-1")),
        (("--json",), None),
        (("--nope", "status"), None),
    ],
    ids=str,
)
def test_an_option_is_put_where_it_goes(
    world: World, pv: InProcess, tmp_path: Path, words: tuple[str, ...], right: tuple[str, ...] | None
) -> None:
    here = {"DIR": str(world.folder)}
    said = pv(*(here.get(word, word) for word in words), at=tmp_path)
    assert (said.code, said.out) == (2, "")
    if right is None:
        assert "see `pv --help`" in said.err or "--json" in words
        return
    assert "Did you mean" not in said.err
    typed = command(said)
    assert typed == ["pv", "-C", str(tmp_path), *(here.get(word, word) for word in right)]
    if "DIR" in words:
        assert pv.ok(*typed[3:], at=tmp_path).out


# Options that no command has


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ("scale", "listening", "0.5", "--modul", "x=1"),
            "No such option '--modul'. (Did you mean one of: '--module', '--modules'?)",
        ),
        (("scale", "listening", "0.5", "--jsn"), "No such option '--jsn'. Did you mean '--json'?"),
        (("scale", "listening", "0.5", "--msg", "hi"), "No such option '--msg'."),
        (("scale", "listening", "-x"), "No such option '-x'"),
        (("config", "output.seed", "3", "--jsn"), "No such option '--jsn'. Did you mean '--json'?"),
    ],
    ids=str,
)
def test_a_slip_in_an_option_is_named(world: World, pv: InProcess, words: tuple[str, ...], says: str) -> None:
    before = world.state()
    said = pv(*words)
    assert (said.code, said.out, says in said.err) == (2, "", True), said
    assert world.state() == before


def test_numbers_below_0_are_none(world: World, pv: InProcess) -> None:
    for words, weight in (
        (("-0.5",), -0.5),
        (("-.25", "--module", "*.mlp.*=-1"), -0.25),
        (("-1e-2", "-m", "-5"), -0.01),
        (("--", "-2"), -2),
    ):
        pv.ok("scale", "listening", *words)
        assert behaviours(pv)["listening"] == weight
    for words in (("-inf",), ("-1x",)):
        assert "Invalid value" in pv("scale", "listening", *words).err


# Values that were given


def test_a_merge_method_is_added_to_what_was_typed(terse: None, world: World, pv: InProcess) -> None:
    said = pv("combine", "--density", "0.3", "--elect", "weighted")
    assert command(said)[3:] == ["combine", "ties", "--density", "0.3", "--elect", "weighted"]
    pv.ok(*command(said)[3:])
    assert "density 0.3, elect weighted" in pv.ok("combine").out
    pv.ok("undo")
    said = pv("merge", "terse", "--density", "0.5", "-m", "it's one")
    typed = ["merge", "terse", "--density", "0.5", "-m", "it's one", "--method", "ties"]
    assert (said.code, command(said)[3:]) == (2, typed)
    pv.ok(*typed)
    assert commits(pv)[0]["message"].strip() == "it's one"


def test_a_choice_is_said_as_it_was_typed(conflict: None, world: World, pv: InProcess) -> None:
    for given in ("12", "0.5", "-7"):
        said = pv("merge", "terse", "--take", f"output.seed={given}")
        assert (said.code, f"--take output.seed={given}: only a behaviour" in said.err) == (2, True), said
    assert "--take output.seed=nan: must be ours" in pv("merge", "terse", "--take", "output.seed=nan").err


def test_what_a_conflict_offers_works(world: World, pv: InProcess) -> None:
    pv.ok("add", "gone=HEAD:listening")
    pv.ok("add", "kept=HEAD:listening")
    pv.ok("switch", "-c", "other")
    pv.ok("scale", "gone", "0.5")
    pv.ok("drop", "kept")
    pv.ok("compress", "listening", "--to", "sparse:0.5", "--force")
    pv.ok("switch", "main")
    pv.ok("drop", "gone")
    pv.ok("scale", "kept", "4")
    pv.ok("compress", "listening", "--to", "sparse:0.3", "--force")
    said = pv("merge", "other")
    theirs, ours, alone = (
        "'theirs*0.5' (half its weight)",
        "'ours*0.5' (half its weight)",
        " or 0.7 (that weight)",
    )
    offer = f"; of gone also {theirs}{alone}; of kept also {ours}{alone}; of listening also {theirs}:\n"
    assert f"hint:  choose ours or theirs for each{offer}" in said.err, said.err
    half = ("--take", "gone=theirs*0.5", "--take", "kept=ours*0.5", "--take", "listening=theirs*0.5")
    pv.ok("merge", "other", *half)
    assert behaviours(pv) == {"gone": 0.25, "kept": 2, "listening": 0.5}
    pv.ok("undo")
    pv.ok("merge", "other", "--take", "gone=0.7", "--take", "kept=0.7", "--take", "listening=ours")


# Names


def test_a_name_that_it_has_is_nothing_to_commit(world: World, pv: InProcess) -> None:
    before, state = commits(pv), behaviours(pv)
    said = pv.ok("rename", "listening", "listening")
    assert said.err == "listening has that name already: nothing to commit\n"
    assert pv.ok("rename", "listening", "listening", "--json").json["changed"] is False
    assert (commits(pv), behaviours(pv)) == (before, state)
    assert "no behaviour 'nobody'" in pv("rename", "nobody", "nobody").err


# Nothing done, nothing ticked


def test_no_tick_where_nothing_was_done(world: World, pv: InProcess) -> None:
    number = pv.ok("op", "log", "--json").json["operations"][0]["seq"]
    for words, says, tick in (
        (("undo", "--to", str(number)), "nothing to do", False),
        (("gc", "-n"), "would be freed", False),
        (("gc",), " freed", True),  # builds in the cache
        (("gc", "-n"), "nothing to delete", False),
        (("gc",), "nothing to delete", False),
    ):
        said = pv.ok(*words)
        assert (says in said.err, "✓" in said.err) == (True, tick), (words, said)


# Dry runs


def test_a_dry_run_refuses_what_the_run_would(world: World, pv: InProcess, tmp_path: Path) -> None:
    pv.ok("commit", world.tuned, "--as", "house")
    full, built = tmp_path / "full", tmp_path / "built"
    full.mkdir()
    (full / "thesis.txt").write_text("years of work")
    pv.ok("build", "-o", built)
    for words in (
        ("build", "-o", full),
        ("build", "-o", full, "--force"),
        ("build", "-o", world.tuned, "--force"),
        ("export", "house", "-o", full),
        ("export", "listening", "-o", world.folder),
        ("export", "house", "-o", world.tuned, "--force"),
    ):
        dry, wet = pv(*words, "-n"), pv(*words)
        assert (dry.code, dry.out, dry.err) == (2, "", wet.err), (words, dry, wet)
        assert "exists and is not empty" in dry.err
    for words in (
        ("build", "-o", built),
        ("build", "-o", built, "--force"),
        ("export", "house", "-o", tmp_path / "new"),
    ):
        assert pv.ok(*words, "-n").out.startswith("would write ")


# Help


def test_help_of_a_subcommand(pv: InProcess) -> None:
    for words in (("op", "show"), ("base", "move"), ("op",), ("merge",)):
        assert pv.ok("help", *words).out == pv.ok(*words, "--help").out, words
    for words, says in (
        (("op", "shwo"), "No such command 'shwo'. Did you mean 'show'?"),
        (("merge", "x"), "pv merge has no subcommands"),
        (("git", "x"), "No such command 'git'"),
    ):
        said = pv("help", *words)
        assert (said.code, said.out, says in said.err) == (2, "", True), said


# Words


def test_how_many_terms_are_left_out() -> None:
    terms = tuple(Term(1.0, digit * 64) for digit in "123")
    assert behaviour_line("x", Behaviour(0.5, terms)) == "x 0.5 × (1·11111111, 1·22222222, … 1 more)"


def test_the_base_talks_beside_a_revision(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "300")
    ask = ("-p", "One?", "--max-tokens", "6")
    both = pv.ok("chat", "--base", "main", *ask, "--json").json
    assert [both[key]["base"] for key in "ab"] == [True, False]
    for key, words in (("a", ("--base",)), ("b", ("main",))):
        assert both[key]["replies"] == pv.ok("chat", *words, *ask, "--json").json["replies"]
    labels = [line for line in pv.ok("chat", "--base", "main", *ask).out.splitlines() if line.endswith(":")]
    assert [label.partition(" (")[0] for label in labels] == ["the base:", "main"]
    assert "the base:" not in pv.ok("chat", "--base", *ask).out
