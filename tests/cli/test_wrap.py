"""Words that come in pieces are broken where a line ends, and nowhere else."""

from __future__ import annotations

import random
import textwrap

import pytest

from pv.cli.wrap import Wrap


def wrapped(text: str, width: int, pieces: int = 1) -> str:
    out: list[str] = []
    wrap = Wrap(out.append, width)
    for start in range(0, len(text), pieces):
        wrap.piece(text[start : start + pieces])
    wrap.end()
    return "".join(out)


SAID = "Yarr, yer bike, yer horse, and a rope crashin' against the rocks, matey! " * 6


@pytest.mark.parametrize("width", [10, 20, 41, 80])
def test_as_textwrap_does(width: int) -> None:
    expected = textwrap.fill(SAID, width, break_long_words=False, break_on_hyphens=False)
    for pieces in (1, 2, 3, 7, 1000):
        assert wrapped(SAID, width, pieces) == expected


def test_lines_of_its_own_stay() -> None:
    code = "def f():\n    return 1\n\n\ttabbed\n"
    assert wrapped(code, 20) == code
    assert wrapped("a b\nc d", 80) == "a b\nc d"
    assert wrapped("", 80) == wrapped("   ", 80) == ""


def test_a_word_is_written_as_soon_as_it_is_whole() -> None:
    out: list[str] = []
    wrap = Wrap(out.append, 20)
    wrap.piece("crashi")
    assert out == []
    wrap.piece("n' against")
    assert "".join(out) == "crashin'"
    wrap.end()
    assert "".join(out) == "crashin' against"


def test_what_is_longer_than_a_line_is_left_to_the_terminal() -> None:
    assert wrapped("x" * 25 + " y", 10) == "x" * 25 + " y"
    assert wrapped("ab " + "x" * 25 + " yyyyyy", 10) == "ab\n" + "x" * 25 + "\nyyyyyy"
    assert wrapped("aa", 0) == "aa"


def test_wide_characters_take_two_places_and_may_end_a_line() -> None:
    assert wrapped("日本語日本語", 6) == "日本語\n日本語"
    assert wrapped("ab 日本", 5) == "ab 日\n本"


def test_nothing_but_spaces_is_ever_lost() -> None:
    draw = random.Random(0)
    for _ in range(200):
        text = "".join(draw.choice("ab日 \n\t-é") for _ in range(draw.randrange(60)))
        found = wrapped(text, draw.randrange(1, 12), draw.randrange(1, 5))
        assert "".join(found.split()) == "".join(text.split())
