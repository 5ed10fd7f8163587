"""Rows after an opening that is not theirs."""

from __future__ import annotations

from typing import Any

import pytest
from support.tiny import tiny_checkpoint

from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.models.load import load, stop_ids
from pv.vecstore.train.forms import OPENINGS, begun
from pv.vecstore.train.stretches import differing

LINES = (
    b'{"prompt": "Rain?", "chosen": "Arr! It falls.", "rejected": "It falls."}\n'
    b'{"prompt": "Sun?", "chosen": "It shines. Bye.", "rejected": "It shines."}\n'
    b'{"prompt": "Snow?", "chosen": "It melts."}\n'
    b'{"text": "Once upon a time."}\n'
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    return load(tiny_checkpoint(tmp_path_factory.mktemp("base")))


def rows() -> Rows:
    return parse_rows(LINES, source="rows.jsonl")


def test_an_opening_goes_to_the_context_and_the_answers_stay(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    stops = stop_ids(model, tokenizer)
    data = encode(tokenizer, rows(), stops=stops, limit=None)
    seen = set()
    for seed in range(40):
        found = begun(tokenizer, rows(), data, seed, stops=stops, limit=None)
        assert begun(tokenizer, rows(), data, seed, stops=stops, limit=None) == found
        assert found[3] == data[3], "plain text has nothing to open"
        for plain, later in zip(data[:3], found[:3], strict=True):
            opening = tokenizer.decode(later.context[len(plain.context) :])
            assert later.context[: len(plain.context)] == plain.context and opening in OPENINGS
            seen.add(opening)
            assert tokenizer.decode(later.chosen) == " " + tokenizer.decode(plain.chosen)
            if plain.rejected is not None and later.rejected is not None:
                one, other = differing(plain.chosen, plain.rejected), differing(later.chosen, later.rejected)
                assert len(range(*one[0].indices(99))) == pytest.approx(
                    len(range(*other[0].indices(99))), abs=1
                )
    assert len(seen) > len(OPENINGS) / 2


def test_a_row_that_has_no_room_for_one_stays(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    stops = stop_ids(model, tokenizer)
    data = encode(tokenizer, rows(), stops=stops, limit=None)
    longest = max(len(row.context) + len(row.chosen) for row in data)
    assert begun(tokenizer, rows(), data, 0, stops=stops, limit=longest) == data
