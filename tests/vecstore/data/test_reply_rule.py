"""The rule for replies in a file of rows: read strictly, and no part of any id."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.rows import as_rows, parse_rows

ROWS = b'{"prompt": "a", "chosen": "b"}\n{"prompt": "c", "chosen": "d"}\n'


def with_rule(rule: Any) -> bytes:
    return json.dumps({"reply": rule}).encode() + b"\n" + ROWS


def test_the_first_line_may_be_a_rule() -> None:
    plain, ruled = parse_rows(ROWS), parse_rows(with_rule({"starts": "arr", "within": 9, "contains": "x"}))
    assert plain.reply is None
    assert ruled.reply is not None and ruled.reply.starts == "arr"
    assert (ruled.id, ruled.rows) == (plain.id, plain.rows)
    assert ruled.lines == (2, 3) and ruled.where(0) == "rows:2"
    assert ruled[:1].reply == as_rows(ruled).reply == ruled.reply
    assert ruled.to_bytes() == plain.to_bytes()
    assert parse_rows(b"[" + with_rule({"ends": "x"}).strip().replace(b"\n", b",") + b"]").reply is not None


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("arr", "must be an object"),
        ({}, "must be an object"),
        (None, "must be an object"),
        ({"start": "arr"}, "unknown key 'start' in 'reply': is it 'starts'?"),
        ({"zzz": 1}, "unknown key 'zzz'"),
        ({"starts": 1}, "regular expression"),
        ({"starts": ""}, "regular expression"),
        ({"starts": "("}, "no regular expression"),
        ({"ends": "(?s)x"}, "no regular expression"),
        ({"matches": "x" * 1001}, "longer than 1000"),
        ({"within": 3}, "'contains', which is missing"),
        ({"contains": "x", "times": -1}, "whole number"),
        ({"contains": "x", "times": True}, "whole number"),
        ({"contains": "x", "within": 0}, "whole number"),
        ({"min_words": 1.5}, "whole number"),
        ({"min_words": 3, "max_words": 2}, "no reply is like that"),
        ({"command": "judge.py"}, "must be a list"),
        ({"command": []}, "must be a list"),
        ({"command": ["a", 1]}, "must be a list"),
        ({"command": ["a\0"]}, "NUL"),
    ],
)
def test_a_wrong_rule_is_refused(rule: Any, words: str) -> None:
    with pytest.raises(DataError, match="rows:1: ") as caught:
        parse_rows(with_rule(rule))
    assert words in str(caught.value)
    assert "docs/rows.md" in (caught.value.hint or "")


def test_a_rule_further_down_or_with_more_keys_is_no_rule() -> None:
    for data in (ROWS + b'{"reply": {"starts": "a"}}\n', b'{"reply": {"starts": "a"}, "x": 1}\n' + ROWS):
        with pytest.raises(DataError, match="of no known format"):
            parse_rows(data)
    with pytest.raises(DataError, match="no rows"):
        parse_rows(b'{"reply": {"starts": "a"}}\n')
