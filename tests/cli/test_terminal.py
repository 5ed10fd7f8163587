"""Manners on a terminal: colour, cursor, and where lines break. A pipe gets none of it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.commands import InProcess, Processes, World, write_rows

from pv.cli.render import table
from pv.cli.terminal import cells, wrap

ESCAPE = "\x1b"
PLAIN = ({"TERM": "dumb"}, {"NO_COLOR": "1", "TERM": "dumb"})
COLOURLESS = ({"CLICOLOR": "0"}, {"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"})
HINT = "make one there: pv branch NAME 0123456789ab, then pv switch NAME"


# Colour and cursor


@pytest.mark.parametrize("env", PLAIN, ids=str)
def test_a_dumb_terminal_gets_text_and_nothing_else(
    world: World, process: Processes, env: dict[str, str]
) -> None:
    for line in (
        ("scale", "listening", "0.5"),
        ("build", "-o", "built"),
        ("log", "nope"),
        ("log", "--oneline"),
        ("status",),
        ("fsck",),
    ):
        said = process.on_terminal(*line, env=env).out
        assert ESCAPE not in said, line
        assert said.splitlines()[0].strip(), f"{line} begins with an empty line"


@pytest.mark.parametrize("env", COLOURLESS, ids=str)
def test_no_colour_where_it_is_not_wanted(world: World, process: Processes, env: dict[str, str]) -> None:
    for line in (("scale", "listening", "0.5"), ("log", "nope"), ("--no-pager", "log")):
        assert ESCAPE not in process.on_terminal(*line, env=env).out, line
    drawn = process.on_terminal("build", "-o", "built", env=env).out
    assert not re.search(r"\x1b\[[0-9;]*m", drawn), "a bar, but no colour"


def test_colour_can_be_asked_for_in_a_pipe(world: World, process: Processes) -> None:
    assert ESCAPE in process("log", env={"FORCE_COLOR": "1"}).out
    assert ESCAPE in process("log", "nope", env={"FORCE_COLOR": "1"}).err
    for env in ({"FORCE_COLOR": "0"}, {"FORCE_COLOR": ""}, {"FORCE_COLOR": "1", "NO_COLOR": "1"}):
        assert ESCAPE not in process("log", env=env).out


# Progress


@pytest.mark.parametrize("columns", [40, 60, 80])
def test_progress_says_nothing_that_is_not_known_and_stays_on_its_line(
    world: World, process: Processes, columns: int
) -> None:
    env = {"COLUMNS": str(columns), "NO_COLOR": "1"}
    line = ("train", world.rows, "--as", "a-rather-long-name", "--max-steps", "2", "--threads", "1")
    drawn = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", process.on_terminal(*line, env=env).out)
    assert "None" not in drawn and "?" not in drawn and "loss -" not in drawn
    assert "loading the model" in drawn
    assert "step 2/2  loss " in drawn or columns == 40
    progress = drawn.partition("✓")[0]
    assert all(cells(row) <= columns for row in re.split(r"[\r\n]+", progress))


# Lines


def test_lines_are_broken_between_words_with_an_indent() -> None:
    note = "  held-out effect +62.94 [+56.93, +68.33] nats, 95 %, n=3: up (pirate.heldout.jsonl)"
    assert wrap(note, 80).splitlines() == [
        "  held-out effect +62.94 [+56.93, +68.33] nats, 95 %, n=3: up",
        "    (pirate.heldout.jsonl)",
    ]
    assert wrap(note, None) == wrap(note, 200) == note
    assert wrap("\x1b[31merror: \x1b[0m" + "word " * 5 + "end", 20, hang=7).splitlines() == [
        "\x1b[31merror: \x1b[0mword word",
        "       word word",
        "       word end",
    ]


def test_a_command_is_never_broken() -> None:
    long = "`pv merge style --take listening=ours --take pirate=theirs --method ties`"
    assert wrap(f"hint:  settle each with {long}, say", 60, hang=7).splitlines() == [
        "hint:  settle each with",
        f"       {long},",
        "       say",
    ]
    assert f"       {HINT.partition(': ')[2]}" in wrap(f"hint:  {HINT}", 60, hang=7).splitlines()


def test_what_has_no_room_is_left_to_the_terminal() -> None:
    path = "/a/" + "long/" * 30
    assert wrap(f"error: {path} is a file", 60) == f"error: {path}\n  is a file"
    assert wrap("| * 0123 a graph " + "x " * 60, 60).count("\n") == 0


@given(st.text(st.sampled_from("ab \x1b[31m`:\n文é"), max_size=200), st.integers(1, 60))
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    assert wrap(text, width).split() == text.split()


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_errors_notes_and_tables_break_between_words(world: World, process: Processes, columns: int) -> None:
    env = {"COLUMNS": str(columns), "NO_COLOR": "1", "TERM": "dumb"}
    rows = write_rows(world.folder / "a-file-of-some-length.heldout.jsonl")
    branch = "-".join(["part"] * 9)
    for line, whole in (
        (("eval", rows.name), rows.name),
        (("switch", branch), f"'{branch}'"),
        (("-C", "/", "status"), "above"),
        (("help", "git"), "`mkdir DIR && cp -r .pv DIR/`"),
        (("diff", "--weights"), "relative"),
    ):
        shown = process.on_terminal(*line, env=env).out.replace("\r\n", "\n")
        assert whole in shown, line
        assert all(cells(row) <= columns for row in shown.split("\n")), shown


def test_the_note_of_a_training_breaks_between_words(world: World, process: Processes) -> None:
    rows = write_rows(world.folder / "rows-of-a-pirate-who-talks.jsonl")
    held = write_rows(world.folder / "rows-of-a-pirate-who-talks.heldout.jsonl")
    line = ("train", rows.name, "--as", "pirate", "--max-steps", "1", "--threads", "1")
    shown = process.on_terminal(*line, env={"COLUMNS": "70", "NO_COLOR": "1", "TERM": "dumb"}).out
    assert held.name in shown
    assert all(cells(row) <= 70 for row in shown.splitlines()), shown


def test_a_pipe_is_never_wrapped(world: World, process: Processes) -> None:
    said = process("switch", "x" * 200, env={"COLUMNS": "40"})
    assert said.err.splitlines()[0] == f"error: no branch '{'x' * 200}'"
    hint = process("-C", "/", "status", env={"COLUMNS": "20"}).err
    assert len(hint.splitlines()) == 2


def test_a_narrow_table_breaks_between_words_and_a_long_word_at_a_sign() -> None:
    rows = [
        ["model.layers.0.mlp.up_proj.weight", "+42.95 [+36.33, +49.15]", "30"],
        ["日本語 and so on", "-", "3"],
    ]
    for width in (34, 60, 80, 120):
        text = table(["pirate.heldout.jsonl", "nats, 95 % interval", "rows"], rows, width=width)
        assert all(cells(line) <= width for line in text.splitlines())
    narrow = table(["data", "rows"], [["pirate.heldout.jsonl", "3"]], width=24)
    assert narrow.splitlines()[2:] == [" pirate.heldout.      3", " jsonl"]
    assert "pirate.heldout.jsonl" in table(["data", "rows"], [["pirate.heldout.jsonl x y z", "3"]], width=34)


def test_a_table_shows_what_a_terminal_would_obey(pv: InProcess) -> None:
    assert "\\x1b[2J" in table(["a"], [["\x1b[2J"]])
    assert table(["a", "b"], [["1\n2", "x"]]).splitlines()[2:] == [" 1   x", " 2"]
