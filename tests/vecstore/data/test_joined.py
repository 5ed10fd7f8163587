"""Several files of rows as one set."""

from __future__ import annotations

from pathlib import Path

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.joined import joined
from pv.vecstore.data.rows import Rows, parse_rows

ONE = parse_rows(b'{"prompt": "a", "chosen": "b"}\n{"prompt": "c", "chosen": "d"}\n', source="x/one.jsonl")
TWO = parse_rows(b'\n{"prompt": "e", "chosen": "f"}\n', source="y/two.jsonl")


def test_rows_come_one_set_after_another(tmp_path: Path) -> None:
    file = tmp_path / "two.jsonl"
    file.write_bytes(TWO.to_bytes())
    both = joined([ONE, file])
    assert both.rows == ONE.rows + TWO.rows and both.source == "one.jsonl + two.jsonl"
    assert both.where(2) == "one.jsonl + two.jsonl: row 3"
    assert both.id == parse_rows(ONE.to_bytes() + TWO.to_bytes()).id


def test_one_set_is_itself() -> None:
    assert joined(ONE) == joined([ONE]) == ONE


def test_a_row_counts_once() -> None:
    with pytest.raises(DataError, match=r"copy.jsonl:2: the same row is in x/one.jsonl") as raised:
        joined([ONE, Rows((*TWO, ONE[1]), "copy.jsonl")])
    assert raised.value.hint == "name each row once"
    twice = Rows((*TWO, *TWO), "twice.jsonl")
    assert len(joined([ONE, twice])) == 4  # within one file it is the file's own affair
    with pytest.raises(DataError, match="no rows were given"):
        joined([])
