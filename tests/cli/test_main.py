"""The program itself: its help, its exit codes, its streams, and what it does not load."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points, version
from pathlib import Path

import click
import pytest
from support.commands import InProcess, Processes, World

from pv.cli.main import COMMANDS, cli
from pv.cli.summaries import SUMMARIES

NAMES = [name for names in COMMANDS.values() for name in names]
ESCAPE = "\x1b["


def test_commands_summaries_and_modules_are_the_same_set() -> None:
    folder = Path(importlib.import_module("pv.cli.commands").__file__ or "").parent
    modules = {path.stem.replace("_", "-") for path in folder.glob("*.py")} - {"--init--"}
    assert len(NAMES) == len(set(NAMES))
    assert set(NAMES) == set(SUMMARIES) == modules
    for name in NAMES:
        command = importlib.import_module(f"pv.cli.commands.{name.replace('-', '_')}").command
        assert (command.name, command.short_help) == (name, SUMMARIES[name])


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_lists_every_command_and_the_exit_codes(pv: InProcess, option: str) -> None:
    said = pv.ok(option)
    for name in NAMES:
        assert f"  {name}  " in said.out
        assert SUMMARIES[name] in said.out
    assert "128 not a registry" in " ".join(said.out.split())
    assert pv.ok().out == said.out


@pytest.mark.parametrize("name", NAMES)
def test_every_command_has_help_with_an_example_and_a_description_of_each_option(
    pv: InProcess, name: str
) -> None:
    said = pv.ok(name, "--help")
    assert f"\n  pv {name}" in said.out
    assert pv.ok(name, "-h").out == said.out
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert all(p.help for p in command.params if isinstance(p, click.Option))


def test_version(pv: InProcess) -> None:
    assert pv.ok("--version").out == f"pv {version('personavec')}\n"


def test_it_is_installed_under_two_names() -> None:
    ours = {point.name: point.value for point in entry_points(group="console_scripts", module="pv.cli.main")}
    assert ours == {"pv": "pv.cli.main:main", "personavec": "pv.cli.main:main"}


@pytest.mark.parametrize(("typed", "meant"), [("statsu", "status"), ("cherrypick", "cherry-pick")])
def test_an_unknown_command_is_answered_with_the_nearest(pv: InProcess, typed: str, meant: str) -> None:
    said = pv(typed)
    assert (said.code, said.out) == (2, "")
    assert f"No such command '{typed}'. Did you mean '{meant}'?" in said.err
    assert pv("frobnicate").code == 2


def test_an_option_of_pv_itself_after_the_command_is_explained(pv: InProcess) -> None:
    assert f"-q goes before the command: `pv -C {pv.at} -q log`" in pv("log", "-q").err
    assert "see `pv log --help`" in pv("log", "--nope").err


def test_a_usage_error_is_json_too_if_that_is_asked_for(world: World, pv: InProcess) -> None:
    for line in (
        ("log", "--json", "--nope"),
        ("scale", "--json"),
        ("build", "--json"),
        ("frobnicate", "--json"),
    ):
        said = pv(*line)
        assert (said.code, said.out) == (2, "")
        assert set(said.error) == {"message", "hint", "exit_code"}
        assert said.error["exit_code"] == 2
        assert len(said.err.splitlines()) == 1


def test_looking_loads_no_tensor_library(world: World) -> None:
    """In one process, one command after the other: what each has loaded is said."""
    code = """
import io, sys, contextlib
from pv.cli.main import run
for line in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run(line.split())
    heavy = {"torch", "transformers", "numpy", "peft", "huggingface_hub", "rich"} & sys.modules.keys()
    print(line, "ended with", code, "and loaded", sorted(heavy))
"""
    lines = [
        "--help", "log --help", "status", "status --json", "log", "log --graph --all --oneline", "show",
        "branch", "branch side", "switch side", "tag v1", "scale listening 0.5", "negate listening",
        "add twice=main:listening", "drop twice", "undo", "redo", "switch main", "merge side",
        "diff HEAD~1 HEAD --recipe", "revert HEAD", "cherry-pick side", "nope", "log nope",
    ]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH")]))}
    done = subprocess.run(
        [sys.executable, "-c", code, *lines], cwd=world.folder, env=env, capture_output=True, text=True
    )
    failing = {"nope": 2, "log nope": 5}
    expected = [f"{line} ended with {failing.get(line, 0)} and loaded []" for line in lines]
    assert done.stdout.splitlines() == expected, done.stderr


def test_with_a_pipe_on_stdin_and_nothing_to_do_it_says_who_it_is(process: Processes) -> None:
    said = process(input="bytes meant for Pipe Viewer")
    assert (said.code, said.out) == (2, "")
    assert "not Pipe Viewer" in said.err
    assert "/usr/bin/pv" in said.err
    said = process()
    assert said.code == 0
    assert said.out.startswith("Usage: pv")


def test_colour_only_on_a_terminal_and_not_with_no_color(world: World, process: Processes) -> None:
    colourful = process.on_terminal("--no-pager", "log")
    plain = process.on_terminal("--no-pager", "log", env={"NO_COLOR": "1"})
    assert ESCAPE in colourful.out
    assert ESCAPE not in plain.out
    assert "Train listening" in plain.out
    assert ESCAPE in process.on_terminal("log", "nope").out
    assert ESCAPE not in process.on_terminal("log", "nope", env={"NO_COLOR": "1"}).out
    assert ESCAPE not in process("log").out


def test_a_pager_gets_what_goes_to_a_terminal_unless_it_is_told_not_to(
    world: World, process: Processes
) -> None:
    pager = {"PV_PAGER": "sed s/^/paged:/", "NO_COLOR": "1"}
    assert "paged:commit" in process.on_terminal("log", env=pager).out
    assert "paged:" not in process.on_terminal("--no-pager", "log", env=pager).out
    assert "paged:" not in process("log", env=pager).out


@pytest.mark.parametrize("line", ["log", "--help"])
def test_a_reader_that_goes_away_is_no_error(world: World, process: Processes, line: str) -> None:
    read, write = os.pipe()
    os.close(read)
    try:
        said = process(line, stdout=write)
    finally:
        os.close(write)
    assert (said.code, said.err) == (141, "")


def test_an_encoding_that_lacks_our_characters_is_no_error(world: World, process: Processes) -> None:
    said = process("show", env={"PYTHONIOENCODING": "ascii"})
    assert said.code == 0
    assert process("-C", "caf\xe9", "status", env={"PYTHONIOENCODING": "ascii"}).code == 2
    said = process("diff", "--weights", env={"PYTHONIOENCODING": "latin-1"})
    assert said.code == 0
    assert "by layer" in said.out
    assert process("scale", "listening", "2", "-m", "caf\xe9 \U0001f600").code == 0
    said = process("show", "--json", env={"PYTHONIOENCODING": "latin-1"})
    assert said.out.isascii() and said.json["message"] == "caf\xe9 \U0001f600"


def test_another_folder(world: World, pv: InProcess, tmp_path: Path) -> None:
    (world.folder / "deep" / "er").mkdir(parents=True)
    below = pv.ok("status", at=world.folder / "deep" / "er")
    assert below.out == pv.ok("status").out
    said = pv("status", at=tmp_path / "nowhere")
    assert (said.code, said.out) == (2, "")
    assert "no folder" in said.err
    assert "-C takes an existing folder" in said.err


def test_quiet_is_quiet(world: World, process: Processes) -> None:
    said = process("-q", "scale", "listening", "0.5")
    assert (said.code, said.out, said.err) == (0, "", "")
    assert process("-q", "scale", "listening", "x").err != ""


def test_a_bug_is_said_to_be_one_and_shows_its_traceback_only_when_asked(
    world: World, process: Processes
) -> None:
    """A folder of the registry replaced by a file is damage that nothing in pv expects."""
    shutil.rmtree(world.folder / ".pv" / "records")
    (world.folder / ".pv" / "records").touch()
    said = process("build", "-o", "built")
    assert (said.code, said.out) == (70, "")
    assert "a bug in pv: NotADirectoryError" in said.err
    assert "run it again with `pv -v ...`" in said.err
    assert "Traceback" not in said.err
    assert "Traceback" in process("-v", "build", "-o", "again").err


def test_shell_completion_answers(process: Processes) -> None:
    said = process(env={"_PV_COMPLETE": "bash_complete", "COMP_WORDS": "pv sta", "COMP_CWORD": "1"})
    assert (said.code, said.out) == (0, "plain,status\n")
