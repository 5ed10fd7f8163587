"""Held-out rows that are training rows are found, however they are spelled."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.vecstore.data.overlap import NAMED, Overlap, overlap
from pv.vecstore.data.rows import Message, Row, Rows, parse_rows

CHARACTERS = st.characters(codec="utf-8", exclude_categories=("Cc", "Zs", "Zl", "Zp"))
TEXTS = st.text(CHARACTERS, min_size=1, max_size=12).filter(lambda text: text.strip() != "")
BLANKS = st.sampled_from(["", " ", "\t", "\n", "\u00a0", "\u3000 "])


def row(prompt: str, chosen: str, rejected: str | None = "no", *, system: str | None = None) -> Row:
    before = () if system is None else (Message("system", system),)
    return Row((*before, Message("user", prompt)), chosen, rejected)


@st.composite
def respelled(draw: st.DrawFn, text: str) -> str:
    """The same text in another case, with other blanks."""
    found = [draw(BLANKS)]
    for ch in text:
        other = ch.swapcase()
        same = other.casefold() == ch.casefold()  # not so of the dotless i, nor of the sign of the kelvin
        found += [other if same and draw(st.booleans()) else ch, draw(BLANKS)]
    return "".join(found)


@given(st.data(), st.lists(TEXTS, min_size=2, max_size=6, unique=True))
def test_every_training_row_is_found(data: st.DataObject, texts: list[str]) -> None:
    """However its case and its blanks were changed, whatever lies around it, and whatever was rejected."""
    trained = Rows(tuple(row(text, f"aye {text}") for text in texts))
    which = data.draw(st.lists(st.sampled_from(texts), max_size=4))
    held = [row(f"0ther {i} {text}", "aye") for i, text in enumerate(texts)]
    before = overlap(Rows(tuple(held)), [trained])
    spelled = [
        row(data.draw(respelled(text)), data.draw(respelled(f"aye {text}")), data.draw(TEXTS))
        for text in which
    ]
    found = overlap(Rows((*held, *spelled)), [trained])
    assert found.rows == before.rows + len(which)
    assert found.prompts == before.prompts
    if which:
        assert found.lines[-1] == len(held) + len(spelled) or len(found.lines) == NAMED
    assert overlap(trained, [trained]).rows == len(trained)  # the same id


@given(st.data(), TEXTS)
def test_a_prompt_alone_is_counted_apart(data: st.DataObject, text: str) -> None:
    trained = Rows((row(text, "one answer"),))
    other = Rows((row(data.draw(respelled(text)), "another answer"),))
    assert overlap(other, [trained]) == Overlap(0, 1, (1,))


def test_rows_that_have_nothing_in_common() -> None:
    assert overlap(Rows((row("a", "b"),)), []) == Overlap()
    assert overlap(Rows((row("a", "b"),)), [Rows((row("b", "a"),)), Rows((row("ab", "b"),))]) == Overlap()
    assert overlap(Rows((row("b", "x", system="a"),)), [Rows((row("ab", "x"),))]) == Overlap()


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("Straße", "STRASSE"),
        ("ﬁne", "FINE"),
        ("é", "e\u0301"),
        ("ｆｕｌｌ", "full"),
        ("ΣΑΣ", "σας"),
        ("²", "2"),
    ],
)
def test_spellings_of_unicode(a: str, b: str) -> None:
    assert overlap(Rows((row(a, a),)), [Rows((row(b, b),))]).rows == 1


def test_lines_are_those_of_the_file() -> None:
    lines = ['{"prompt": "a", "chosen": "b"}', "", '{"prompt": "c", "chosen": "d"}']
    measured = parse_rows("\n".join(lines).encode())
    assert overlap(measured, [Rows((row("C", "D"),))]).lines == (3,)
    many = Rows(tuple(row(str(i), "x") for i in range(40)))
    found = overlap(many, [many])
    assert (found.rows, found.lines) == (40, tuple(range(1, NAMED + 1)))


@pytest.mark.parametrize(
    "document",
    [None, {}, [], {"rows": "3"}, {"rows": True, "prompts": 0, "lines": [], "unknown": []},
     {"rows": 1, "prompts": 0, "lines": ["1"], "unknown": []},
     {"rows": 1, "prompts": 0, "lines": [1], "unknown": [1]},
     {"rows": 1, "prompts": 0.5, "lines": [1], "unknown": []}],
)  # fmt: skip
def test_what_says_nothing_of_it(document: Any) -> None:
    assert Overlap.read(document) is None


def test_what_is_written_is_read() -> None:
    found = Overlap(3, 1, (1, 2, 3), ("a", "b"))
    assert Overlap.read(json.loads(json.dumps(found.to_json()))) == found


def test_a_long_run_of_marks_is_compared_as_it_is() -> None:
    """Its marks were put in order in quadratic time: minutes, for this."""
    marks = "a" + "\u0301\u0323" * 200_000
    document = json.dumps({"prompt": "Hi", "chosen": marks}) + "\n"
    rows = parse_rows(document.encode())
    assert overlap(rows, [rows]).rows == 1
