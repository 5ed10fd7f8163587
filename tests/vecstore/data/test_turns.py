"""Conversations with several answers, as rows to train on."""

from __future__ import annotations

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.data.turns import every_answer, not_all_alike

SHAREGPT = (
    b'{"conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "A?"}, '
    b'{"from": "gpt", "value": "a."}, {"from": "human", "value": "B?"}, {"from": "gpt", "value": "b."}]}\n'
    b'{"instruction": "C?", "input": "", "output": "c."}\n'
)


def test_every_answer_is_a_row_whose_context_is_before_it() -> None:
    rows = parse_rows(SHAREGPT, source="talk.jsonl")
    assert [row.chosen for row in rows] == ["b.", "c."]
    all_of_them = every_answer(rows)
    assert [row.chosen for row in all_of_them] == ["a.", "b.", "c."]
    assert [len(row.prompt) for row in all_of_them] == [2, 4, 1]
    assert [all_of_them.where(i) for i in range(3)] == ["talk.jsonl:1", "talk.jsonl:1", "talk.jsonl:2"]
    assert "3 instead of 2" in all_of_them.notes[-1]
    assert every_answer(all_of_them[1:]).rows == all_of_them.rows


def test_rows_with_one_answer_stay_what_they_are() -> None:
    rows = parse_rows(b'{"prompt": "A?", "chosen": "a.", "rejected": "b."}\n{"text": "words"}\n')
    assert every_answer(rows) is rows


def test_rows_that_are_all_the_same_are_refused() -> None:
    same = b'{"prompt": "A?", "chosen": "a."}\n'
    not_all_alike(parse_rows(same))
    not_all_alike(parse_rows(same * 3 + b'{"prompt": "B?", "chosen": "a."}\n'))
    with pytest.raises(DataError, match="all 3 rows are the same row"):
        not_all_alike(parse_rows(same * 3))
