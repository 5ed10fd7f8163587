"""Tables, sizes and one-line forms; and progress, which is drawn or told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.cli.progress import Lines
from pv.cli.render import (
    behaviour_line,
    change_lines,
    interval,
    number,
    persona_line,
    size,
    table,
)
from pv.registry.changes import changes
from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.progress import Tick

A = "a" * 64


def test_a_table_puts_words_left_and_numbers_right() -> None:
    text = table(["name", "count", "share"], [["long name", "1", "5 %"], ["x", "1,000", "-12.5 %"]])
    assert text.splitlines() == [
        " name        count     share",
        " ───────────────────────────",
        " long name       1       5 %",
        " x           1,000   -12.5 %",
    ]


def test_a_table_takes_cells_as_they_are() -> None:
    assert "[bold]x[/]" in table(["a"], [["[bold]x[/]"]]), "markup in a name is not obeyed"
    assert "\x1b" not in table(["a"], [["x"]])
    assert table(["a", "b"], []).splitlines()[0] == " a   b"


def test_a_long_cell_is_folded_and_nothing_is_lost() -> None:
    words = " ".join(f"word{i}" for i in range(40))
    text = table(["prompt", "reply"], [["short", words]], width=60)
    assert all(len(line) <= 60 for line in text.splitlines())
    assert "".join(text.split()).replace("─", "").endswith("".join(words.split()))


def test_numbers_and_sizes_are_as_a_person_writes_them() -> None:
    assert [number(x) for x in (1.0, -0.5, 1e-7, 1e6)] == ["1", "-0.5", "1e-07", "1000000"]
    assert [size(n) for n in (0, 999, 1000, 269_000_000, 3_500_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "269 MB",
        "3.5 GB",
    ]
    assert interval(1.234, -0.5, 2) == "+1.23 [-0.50, +2.00]"
    assert interval(1.2345, 1, 2, 3) == "+1.234 [+1.000, +2.000]"
    assert interval(-0.001, -0.2, 0.001) == "+0.00 [-0.20, +0.00]"  # no minus before a zero


@given(st.integers(0, 1 << 60))
def test_a_size_is_right_to_three_digits(nbytes: int) -> None:
    text, unit = size(nbytes).split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert abs(float(text) * scale - nbytes) <= 0.005 * nbytes


def test_what_is_said_of_a_persona_obeys_no_pattern() -> None:
    """A module pattern may hold anything that a stranger's registry does."""
    evil = Behaviour(1.0, (Term(1.0, A),), {"\x1b[31mred\x1b]0;title\x07": 0.5})
    persona, base = Persona(A, {"x": evil}), Persona(A)
    plain = Behaviour(1.0, evil.terms)
    lines = change_lines(changes(Persona(A, {"x": plain}), persona))
    for text in (behaviour_line("x", evil), persona_line(persona), *lines):
        assert "red" in text and "\x1b]" not in text and "\x1b[31mred" not in text
    (line,) = change_lines(changes(base, Persona(A, {"x": plain})))
    assert line == "\x1b[32m+ x 1\x1b[0m"


def test_without_a_terminal_progress_is_a_line_now_and_then(capsys: pytest.CaptureFixture[str]) -> None:
    update = Lines(every_s=0)
    update(Tick("building", 50, 200))
    update(Tick("building", 200, 200))
    assert capsys.readouterr() == (
        "",
        "  building: 50 B of 200 B\n  building: 200 B of 200 B\n",
    )
    update = Lines(every_s=0)
    update(Tick("measuring", 3, 12, "answers"))
    update(Tick("measuring", 3, 0, "answers"))
    update(Tick("measuring", 0, 0, "answers"))
    said = ["  measuring: 3/12 answers", "  measuring: 3 answers", "  measuring"]
    assert capsys.readouterr().err.splitlines() == said
    update = Lines(every_s=3600)
    update(Tick("building", 1, 2))
    assert capsys.readouterr().err == ""
    update(Tick("fetching u/n at abc", 0, 0, unit=""))
    assert capsys.readouterr().err == "fetching u/n at abc\n"
    for step in (1, 2, 3):
        update(Tick("training x", step, 3, "steps", 2.5, 100.0, 4.0))
    assert capsys.readouterr().err.splitlines() == [
        f"  training x: step {step}/3, loss 2.500, 100 tokens/s, 0:04 left" for step in (1, 3)
    ]
