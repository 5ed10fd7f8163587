"""Words of git and of other tools are answered with what does it here; `pv help`; `--json` as an option only."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support.commands import InProcess, Processes, World, behaviours

import pv
from pv.cli.git_words import GIT, OPTIONS, OTHERS


@pytest.mark.parametrize("word", [*GIT, *OTHERS])
def test_a_word_of_git_is_answered_with_what_does_it_here(pv: InProcess, word: str) -> None:
    said = pv(word, "x", "--hard")
    assert (said.code, said.out) == (2, "")
    assert said.err == f"error: No such command {word!r}.\nhint:  {(GIT | OTHERS)[word]}\n"


def test_an_option_of_git_too(pv: InProcess) -> None:
    for (command, option), answer in OPTIONS.items():
        said = pv(command, option)
        assert (said.code, said.err.splitlines()[-1]) == (2, f"hint:  {answer}")


def test_what_the_words_say_is_so(world: World, pv: InProcess, process: Processes) -> None:
    """Those that move a registry, done."""
    pv.ok("add", "NEW=HEAD:listening")
    pv.ok("drop", "listening")
    assert behaviours(pv) == {"NEW": 1.0}, "mv"
    pv.ok("add", "HEAD~1:listening")
    assert behaviours(pv) == {"NEW": 1.0, "listening": 1.0}, "restore"
    pv.ok("undo")
    assert behaviours(pv) == {"NEW": 1.0}, "reset"
    pv.ok("switch", "-c", "aside", "HEAD~1")
    assert behaviours(pv) == {"NEW": 1.0, "listening": 1.0}, "checkout, stash"
    subprocess.run("mkdir DIR && cp -r .pv DIR/", shell=True, check=True, cwd=world.folder)
    clone = world.folder / "DIR"
    assert pv.ok("log", "--all", "--json", at=clone).json == pv.ok("log", "--all", "--json").json
    pv.ok("fsck", "--deep", at=clone)
    weights = [pv.ok("build", "-o", "built", "--json", at=at).json["weights"] for at in (clone, world.folder)]
    assert weights[0] == weights[1], "clone"


def test_a_typing_error_still_gets_the_nearest_name(world: World, pv: InProcess) -> None:
    assert pv("mergee").err.splitlines()[0] == "error: No such command 'mergee'. Did you mean 'merge'?"
    assert pv("frobnicate").err == "error: No such command 'frobnicate'.\nhint:  see `pv --help`\n"
    assert pv("switch", "mian").err == "error: no branch 'mian'\nhint:  did you mean main?\n"
    assert "`pv branch` lists" in pv("switch", "frobnicate").err


def test_help_is_a_command(pv: InProcess) -> None:
    assert pv.ok("help").out == pv.ok("--help").out
    assert pv.ok("help", "merge").out == pv.ok("merge", "--help").out
    assert pv.ok("help", "help").out == pv.ok("help", "--help").out
    listed = pv.ok("help", "git").out.splitlines()
    assert [line.split(maxsplit=1) for line in listed] == [[word, answer] for word, answer in GIT.items()]
    assert "Did you mean 'merge'?" in pv("help", "mergee").err
    assert "pv undo" in pv("help", "reset").err
    assert pv("help", "reset").code == pv("help", "a", "b").code == 2


def test_python_can_run_it_and_knows_its_version(process: Processes) -> None:
    done = subprocess.run([sys.executable, "-m", "pv", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"pv {pv.__version__}\n")


@pytest.mark.parametrize(
    "line",
    [
        ("scale", "nope", "2", "-m", "--json"),
        ("scale", "listening", "x", "--message=--json"),
        ("log", "--", "--json"),
        ("scale", "listening", "x", "-m", "--json", "--nope"),
    ],
    ids=" ".join,
)
def test_json_is_an_option_and_not_any_word_that_reads_so(
    world: World, pv: InProcess, line: tuple[str, ...]
) -> None:
    said = pv(*line)
    assert said.code in (2, 5)
    assert said.err.startswith("error: "), said.err


@pytest.mark.parametrize(
    "line",
    [
        ("scale", "nope", "2", "-m", "-v", "--json"),
        ("scale", "listening", "x", "--json"),
        ("scale", "--json", "listening", "2", "-m"),
        ("log", "--nope", "--json"),
        ("frobnicate", "--json"),
    ],
    ids=" ".join,
)
def test_an_error_is_json_wherever_the_option_stands(
    world: World, pv: InProcess, line: tuple[str, ...]
) -> None:
    said = pv(*line)
    assert said.error["exit_code"] == said.code != 0
    assert len(said.err.splitlines()) == 1


def test_a_message_that_reads_like_an_option_is_a_message(world: World, pv: InProcess) -> None:
    pv.ok("scale", "listening", "0.5", "-m", "--json")
    assert pv.ok("show", "--json").json["message"].strip() == "--json"
