"""Questions with choices: read strictly, and named by what they say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.questions import parse_questions, read_questions

ICE: dict[str, Any] = {"question": "What is frozen water?", "choices": ["Sand", "Ice"], "answer": 1}
SUN: dict[str, Any] = {"question": "What is hot?", "choices": ["The Sun", "Ice", "Snow"], "answer": 0}


def lines(*rows: object) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def test_questions_are_read(tmp_path: Path) -> None:
    file = tmp_path / "trivia.jsonl"
    file.write_bytes(lines(ICE, SUN))
    found = read_questions(file)
    assert [(one.prompt[0].content, one.choices[one.answer]) for one in found] == [
        ("What is frozen water?", "Ice"),
        ("What is hot?", "The Sun"),
    ]
    assert found.tasks == ("trivia",) and found[0].prompt[0].role == "user" and found.notes == ()
    assert found.where(1) == f"{file}:2" and len(found[:1]) == 1


def test_rows_of_mmlu_are_read() -> None:
    """Its own columns, as an array too; the subject is a column like any other."""
    found = parse_questions(json.dumps([{**ICE, "subject": "physics"}, SUN]).encode(), source="mmlu.json")
    assert found.tasks == ("mmlu",) and found.notes == ("mmlu.json: ignored columns: subject",)


def test_the_id_is_of_what_they_say() -> None:
    said = parse_questions(lines(ICE, SUN), source="x.jsonl")
    spaced = parse_questions(
        b"\n" + lines({**ICE, "choices": [" Sand ", "Ice"]}, SUN), source="elsewhere/x.jsonl"
    )
    assert spaced.id == said.id and spaced.lines == (2, 3)
    for other in ({**ICE, "answer": 0}, {**ICE, "choices": ["Ice", "Sand"]}, {**ICE, "task": "y"}):
        assert (
            parse_questions(lines(other, {**SUN, "task": other.get("task", "x")}), source="x").id != said.id
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"choices": ["Ice"]}, "must be a list of 2 to 26 texts, not a list of 1"),
        ({"choices": [str(i) for i in range(27)]}, "not a list of 27"),
        ({"choices": "Ice"}, "not text"),
        ({"choices": None}, "not null"),
        ({"choices": ["Ice", 3]}, "must be text"),
        ({"choices": ["Ice", " "]}, "a choice is empty"),
        ({"choices": ["Ice", "Ice "]}, "two of the choices are the same text"),
        ({"answer": 2}, "'answer' must be the place of the right choice, 0 to 1, not 2"),
        ({"answer": -1}, "not -1"),
        ({"answer": True}, "not true or false"),
        ({"answer": "Ice"}, "not text"),
        ({"answer": 1.0}, "not a number"),
        ({"question": " "}, "'question' is empty"),
        ({"question": 3}, "must be text"),
        ({"question": "\ud800"}, "surrogate"),
        ({"task": ""}, "'task' is empty"),
        ({"task": "x" * 41}, "at most 40 characters"),
        ({"task": "a\x1b[31m"}, "at most 40 characters"),
        ({"task": 3}, "must be text"),
    ],
)
def test_what_is_no_question(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=r"^q\.jsonl:2: ") as caught:
        parse_questions(lines(SUN, {**ICE, **change}), source="q.jsonl")
    assert said in str(caught.value) and caught.value.hint


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no questions"),
        (b"[]", "no questions"),
        (b"3\n", "a question is a JSON object, not a number"),
        (b"{", "q.jsonl:1"),
        (lines({"question": "a", "answer": 0}), "key 'choices' is missing: there are 'answer', 'question'"),
        (lines({}), "key 'question' is missing: there are none"),
        (lines(ICE), "task 'q' has a single question"),
        (lines({**ICE, "task": "a"}, SUN, SUN), "task 'a' has a single question"),
        (b"\x1f\x8b1234", "gzip"),
        (b"question,choices,answer\na,b,0\n", "q.jsonl:1"),
    ],
)
def test_files_that_hold_none(data: bytes, said: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_questions(data, source="q.jsonl")
    assert said in str(caught.value)


def test_a_table_has_no_lists() -> None:
    with pytest.raises(DataError, match="'choices' must be a list"):
        parse_questions(b"question,choices,answer\na,b,0\n", source="q.csv")


def test_no_file(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.jsonl", "no file"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=said):
            read_questions(path)
