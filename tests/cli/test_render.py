"""Tables, sizes and one-line forms; and progress, which is drawn or told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.cli.progress import Lines
from pv.cli.render import (
    behaviour_line,
    combine_words,
    conflict_side,
    interval,
    number,
    persona_line,
    size,
    table,
)
from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.progress import Tick

A, B = "a" * 64, "b" * 64


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
    assert [number(x) for x in (1.0, -0.5, 1e-7, 1e6)] == ["1", "-0.5", "1e-07", "1e+06"]
    assert [size(n) for n in (0, 999, 1000, 269_000_000, 3_500_000_000)] == [
        "0 B",
        "999 B",
        "1 kB",
        "269 MB",
        "3.5 GB",
    ]
    assert interval(1.234, -0.5, 2) == "+1.23 [-0.50, +2.00]"
    assert interval(1.2345, 1, 2, 3) == "+1.234 [+1.000, +2.000]"


@given(st.integers(0, 1 << 60))
def test_a_size_is_right_to_three_digits(nbytes: int) -> None:
    text, unit = size(nbytes).split()
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}[unit]
    assert abs(float(text) * scale - nbytes) <= 0.005 * nbytes


def test_behaviours_in_one_line() -> None:
    plain = Behaviour(1.0, (Term(1.0, A),))
    contrast = Behaviour(0.5, (Term(1.0, A), Term(-1.0, B)))
    assert behaviour_line("x", plain) == "x 1"
    assert behaviour_line("x", contrast) == "x 0.5 × (1·aaaaaaaa, -1·bbbbbbbb)"
    assert persona_line(Persona(A)) == "(base)"
    assert persona_line(Persona(A, {"b": plain, "a": contrast})).startswith("a 0.5 × (")
    assert combine_words(Combine.of("add")) == "add"
    assert combine_words(Combine.of("ties", density=0.3)).startswith("ties (density 0.3")


def test_a_side_of_a_conflict_in_words() -> None:
    assert conflict_side(None) == "(absent)"
    assert conflict_side("bf16") == "bf16"
    assert conflict_side(Behaviour(2.0, (Term(1.0, A),)).to_json()) == "weight 2 × (1·aaaaaaaaaaaa)"
    by_module = Behaviour(2.0, (Term(1.0, A),), {"mlp": 0.5})
    assert conflict_side(by_module.to_json()).endswith(" (mlp × 0.5)")
    assert conflict_side(Combine.of("add").to_json()) == "add"


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
