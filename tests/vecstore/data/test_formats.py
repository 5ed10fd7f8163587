"""Formats of rows: what people have becomes what it says, or the line is named with its format."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.formats import FORMATS
from pv.vecstore.data.rows import Message, Row, Rows, parse_rows

USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
OTHER = {"role": "assistant", "content": "No"}
SYSTEM = {"role": "system", "content": "Be brief."}
ASKED = (Message("user", "Hi"),)
DOCS = Path(__file__).parents[3] / "docs" / "rows.md"


def rows(*documents: dict[str, Any]) -> Rows:
    return parse_rows("".join(json.dumps(one) + "\n" for one in documents).encode(), source="mine.jsonl")


def refused(document: dict[str, Any]) -> DataError:
    with pytest.raises(DataError) as caught:
        rows({"prompt": "fine", "chosen": "fine too"}, document)
    assert str(caught.value).startswith("mine.jsonl:2: ")
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize(
    ("document", "row"),
    [
        ({"prompt": "Hi", "chosen": "Yo", "rejected": None}, Row(ASKED, "Yo")),
        ({"chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, Row(ASKED, "Yo", "No")),
        ({"prompt": None, "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, Row(ASKED, "Yo", "No")),
        ({"prompt": "Hi", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, Row(ASKED, "Yo", "No")),
        ({"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}, Row(ASKED, "Yo", "No")),
        ({"prompt": [USER], "completion": [ANSWER]}, Row(ASKED, "Yo")),
        ({"prompt": "Hi", "completion": "Yo", "label": True}, Row(ASKED, "Yo")),
        ({"messages": [SYSTEM, USER, ANSWER]}, Row((Message("system", "Be brief."), *ASKED), "Yo")),
        ({"messages": [USER, OTHER, USER, ANSWER]}, Row((*ASKED, Message("assistant", "No"), *ASKED), "Yo")),
        ({"messages": [{**USER, "name": None}, ANSWER]}, Row(ASKED, "Yo")),
        (
            {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo", "weight": None}]},
            Row(ASKED, "Yo"),
        ),
        (
            {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": "Hi"},
                               {"from": "gpt", "value": "Yo"}]},
            Row((Message("system", "Be brief."), *ASKED), "Yo"),
        ),
        ({"conversations": [USER, ANSWER]}, Row(ASKED, "Yo")),
        ({"instruction": "Hi", "output": "Yo"}, Row(ASKED, "Yo")),
        ({"instruction": "Hi", "input": "", "output": "Yo"}, Row(ASKED, "Yo")),
        ({"instruction": "Add", "input": "1 2", "output": "3"}, Row((Message("user", "Add\n\n1 2"),), "3")),
        ({"text": "Once upon a time."}, Row((), "Once upon a time.")),
    ],
)  # fmt: skip
def test_what_people_have_becomes_rows(document: dict[str, Any], row: Row) -> None:
    """All of these are read, not only the conversational ones of TRL."""
    found = rows(document)
    assert found.rows == (row,)
    again = parse_rows(found.to_bytes())
    assert again.rows == found.rows and again.id == found.id


def test_a_format_has_the_id_of_what_it_says() -> None:
    same = rows({"prompt": "Hi", "chosen": "Yo"}).id
    for document in (
        {"instruction": "Hi", "output": "Yo"},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yo"}]},
        {"prompt": "Hi", "completion": "Yo", "label": True, "id": 7},
    ):
        assert rows(document).id == same
    assert rows({"text": "Hi Yo"}).id != same


def test_other_columns_are_left_alone_and_named() -> None:
    found = rows(
        {
            "prompt": "Hi",
            "chosen": "Yo",
            "rejected": "No",
            "score_chosen": 9.5,
            "prompt_id": "x",
            "messages": [],
        },
        {"instruction": "Hi", "input": "", "output": "Yo", "text": "all of it", "source": None},
    )
    assert found.rows == (Row(ASKED, "Yo", "No"), Row(ASKED, "Yo"))
    assert found.notes == ("mine.jsonl: ignored columns: messages, prompt_id, score_chosen, source, text",)
    assert found[:1].notes == found.notes
    many = rows({"text": "a", **{f"column{i}": i for i in range(9)}})
    assert "column5 and 3 more" in many.notes[0]
    assert rows({"prompt": "Hi", "chosen": "Yo"}).notes == ()


def test_what_a_verdict_or_a_text_means_is_said() -> None:
    yes, no = (
        {"prompt": "Hi", "completion": "Yo", "label": True},
        {"prompt": "Hi", "completion": "No", "label": False},
    )
    found = rows(no, yes, no)
    assert found.rows == (Row(ASKED, "Yo"),)
    assert found.where(0) == "mine.jsonl:2"
    assert "2 of 3 rows have label false and are left out" in found.notes[0]
    with pytest.raises(DataError, match="all 2 rows have label false") as caught:
        rows(no, no)
    assert "rejected" in (caught.value.hint or "")
    assert "1 of 2 rows are plain text" in rows({"text": "a"}, {"prompt": "a", "chosen": "b"}).notes[0]


@pytest.mark.parametrize(
    ("document", "slip", "meant", "format"),
    [
        ({"promt": "a", "chosen": "b"}, "promt", "prompt", "preference"),
        ({"promt": "a", "chosen": "b", "rejected": "c"}, "promt", "prompt", "preference"),
        ({"prompt": "a", "chosen": "b", "rejcted": "c"}, "rejcted", "rejected", "preference"),
        ({"prompt": "a", "Chosen": "b"}, "Chosen", "chosen", "preference"),
        ({"prompt": "a", "chossen": "b", "rejected": "c"}, "chossen", "chosen", "preference"),
        ({"prompt": "a", "completion": "b", "lable": True}, "lable", "label", "KTO"),
        ({"prompt": "a", "completions": "b"}, "completions", "completion", "prompt and completion"),
        ({"instruction": "a", "inputs": "b", "output": "c"}, "inputs", "input", "Alpaca"),
        ({"instructions": "a", "output": "c"}, "instructions", "instruction", "Alpaca"),
        ({"message": [USER, ANSWER]}, "message", "messages", "messages"),
        ({"conversation": []}, "conversation", "conversations", "ShareGPT"),
        ({"txt": "a"}, "txt", "text", "text"),
    ],
)
def test_a_misspelt_key_is_refused(document: dict[str, Any], slip: str, meant: str, format: str) -> None:
    error = refused(document)
    assert f"unknown key {slip!r}: is it {meant!r}?" in str(error)
    assert (error.hint or "").startswith(f"{format} rows: ")


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "of no known format: its keys are none"),
        ({"text_a": "a", "answer": "b"}, "its keys are 'answer', 'text_a'"),
        ({"instruction": "a", "input": "b"}, "key 'output' is missing"),
        ({"instruction": " ", "output": "b"}, "'instruction' is empty"),
        ({"instruction": "a", "output": "b", "history": []}, "do not go together"),
        ({"instruction": "a", "chosen": "b", "rejected": "c"}, "do not go together"),
        ({"prompt": "a", "text": "b"}, "do not go together"),
        ({"chosen": "a b", "rejected": "a c"}, "'prompt' is missing"),
        (
            {"chosen": [USER, ANSWER], "rejected": [SYSTEM, USER, OTHER]},
            "do not begin with the same messages",
        ),
        ({"chosen": [ANSWER], "rejected": [OTHER]}, "do not begin with the same messages"),
        ({"prompt": "Ho", "chosen": [USER, ANSWER], "rejected": [USER, OTHER]}, "one assistant message"),
        ({"chosen": [USER, ANSWER], "rejected": [USER, ANSWER]}, "the same text"),
        ({"prompt": "a", "completion": "b", "label": "perhaps"}, "'label' must be true or false"),
        ({"prompt": "a", "completion": "b", "label": 1}, "'label' must be true or false"),
        ({"prompt": "a", "completion": "b", "label": None}, "'label' must be true or false, not null"),
        ({"conversations": [{"from": "wizard", "value": "a"}]}, "unknown role 'wizard'"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "end with the assistant"),
        ({"conversations": [{"from": "human"}]}, "a message in 'conversations'"),
        ({"conversations": "a"}, "a list of messages"),
        ({"messages": [USER, ANSWER, ANSWER]}, "two answers in a row"),
        ({"messages": [{**USER, "tool_calls": [1]}, ANSWER]}, "a message in 'messages'"),
        ({"text": ""}, "'text' is empty"),
        ({"text": 7}, "'text' must be text"),
        ({"text": None}, "not null"),
    ],
)
def test_what_cannot_be_told_is_refused(document: dict[str, Any], says: str) -> None:
    assert says in str(refused(document))


def test_every_format_is_documented_with_a_row_that_is_one() -> None:
    """docs/rows.md: each row there is read, by the format of its section, and each format is there."""
    found = re.findall(r"```json\n(.*?)```", DOCS.read_text(encoding="utf-8"), flags=re.DOTALL)
    keys = set()
    for block in found:
        parsed = parse_rows(block.encode(), source="docs")
        assert parsed.notes == () or "plain text" in parsed.notes[0] or "label false" in parsed.notes[0]
        keys |= {tuple(sorted(json.loads(line))) for line in block.strip().splitlines()}
    for one in FORMATS:
        assert any(set(one.keys) <= set(row) for row in keys), one.name
