"""Rows: one shape out of all formats; every way to get a line wrong names that line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import run

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Message, Row, Rows, parse_rows, read_rows

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
PROMPT = st.lists(st.builds(Message, st.sampled_from(["system", "user"]), TEXT), min_size=1, max_size=3)


def line(**keys: object) -> bytes:
    return json.dumps(keys).encode() + b"\n"


def test_four_shapes_mean_the_same() -> None:
    user, answer = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}
    expected = parse_rows(line(prompt="Hi", chosen="Yo"))
    assert expected.rows == (Row((Message("user", "Hi"),), "Yo", None),)
    for other in (
        line(prompt=[user], chosen="Yo"),
        line(prompt="Hi", completion="Yo"),
        line(prompt=[user], completion=[answer]),
        line(prompt=[user], chosen=[answer]),
        line(messages=[user, answer]),
        b"\xef\xbb\xbf\r\n" + line(chosen="Yo", prompt="Hi").strip() + b"\r\n\n",
    ):
        assert parse_rows(other).rows == expected.rows
        assert parse_rows(other).id == expected.id


def test_id_is_pinned_and_tells_rows_apart() -> None:
    rows = parse_rows(line(prompt="Use SQLite.", chosen="SQLite it is.", rejected="Why not Postgres?"))
    assert rows.id == "280e8cbf18619b997eee990116e61e268ff864874ab94fccae4b503e215388b0"
    others = [
        line(prompt="Use SQLite.", chosen="SQLite it is."),
        line(prompt="Use SQLite.", chosen="Why not Postgres?", rejected="SQLite it is."),
        line(prompt=[{"role": "system", "content": "Use SQLite."}], chosen="x"),
        line(prompt="Use SQLite.", chosen="SQLite it is.", rejected="Why not Postgres?") * 2,
    ]
    ids = {parse_rows(other).id for other in others}
    assert len(ids) == len(others)
    assert rows.id not in ids


@given(st.lists(st.tuples(PROMPT, TEXT, st.none() | TEXT), min_size=1, max_size=4))
def test_rows_survive_being_written_and_read(parts: list[tuple[list[Message], str, str | None]]) -> None:
    rows = Rows(tuple(Row(tuple(p), c, r) for p, c, r in parts if c != r))
    if not rows:
        return
    again = parse_rows(rows.to_bytes())
    assert again.rows == rows.rows
    assert again.id == rows.id


def test_lines_are_counted_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n" + line(prompt="a\u2028b", chosen="x") + b"  \n" + line(prompt="c", chosen="d"))
    rows = read_rows(path)
    assert [rows.where(i) for i in range(2)] == [f"{path}:2", f"{path}:4"]
    assert rows[1:].where(0) == f"{path}:4"
    assert [row.chosen for row in rows] == ["x", "d"]
    assert Rows(rows.rows).where(1) == "rows:2"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (b"{", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b'{"prompt": "a", "prompt": "b", "chosen": "c"}', "twice"),
        (b'{"prompt": "a", "chosen": NaN}', "not a JSON number"),
        (b"[1]", "not a list"),
        (b"7", "not a number"),
        (line(prompt="a"), "'chosen' is missing"),
        (line(chosen="a", rejected="b"), "'prompt' is missing"),
        (line(prompt="a", chosen="b", rejcted="c"), "unknown key 'rejcted'"),
        (line(prompt="a", chosen="b", completion="c"), "do not go together"),
        (line(prompt=1, chosen="b"), "not a number"),
        (line(prompt=None, chosen="b"), "not null"),
        (line(prompt=[], chosen="b"), "an empty list"),
        (line(prompt=" ", chosen="b"), "'prompt' is empty"),
        (line(prompt=["a"], chosen="b"), "a message in 'prompt'"),
        (line(prompt=[{"role": "user"}], chosen="b"), "a message in 'prompt'"),
        (line(prompt=[{"role": "wizard", "content": "a"}], chosen="b"), "unknown role 'wizard'"),
        (line(prompt=[{"role": "user", "content": 1}], chosen="b"), "must be text"),
        (line(prompt=[{"role": "assistant", "content": "a"}], chosen="b"), "ends with the assistant"),
        (line(prompt="a", chosen=""), "'chosen' is empty"),
        (line(prompt="a", chosen=" \n"), "'chosen' is empty"),
        (line(prompt="a", chosen=True), "not true or false"),
        (line(prompt="a", chosen="b", rejected=""), "'rejected' is empty"),
        (line(prompt="a", chosen=None, rejected="b"), "not null"),
        (line(prompt="a", chosen="b", rejected="b"), "the same text"),
        (line(prompt="a", completion=[{"role": "user", "content": "b"}]), "one assistant message"),
        (b'{"prompt": "a", "chosen": "\\ud800"}', "surrogate"),
        (line(messages=[{"role": "assistant", "content": "b"}]), "after at least one message"),
        (line(messages=[{"role": "user", "content": "b"}] * 2), "end with the assistant"),
        (line(messages="b"), "a list of messages"),
    ],
)
def test_bad_lines_are_named(bad: bytes, says: str) -> None:
    data = line(prompt="fine", chosen="fine too") + bad
    with pytest.raises(DataError) as caught:
        parse_rows(data, source="mine.jsonl")
    assert str(caught.value).startswith("mine.jsonl:2: ")
    assert says in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_no_data(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"empty\.jsonl:1: no rows"):
        read_rows(path)


def test_a_file_that_is_not_there_is_looked_for_beside(tmp_path: Path) -> None:
    """The hint is not the format of a row."""
    for path, says, hint in (
        (tmp_path / "rows.jsonl", "no file", "holds no file of rows"),
        (tmp_path / "none" / "rows.jsonl", "no file", "no folder"),
        (tmp_path, "is a folder", "holds no file of rows"),
    ):
        with pytest.raises(DataError, match=says) as caught:
            read_rows(path)
        assert hint in (caught.value.hint or "")
    (tmp_path / "pirate.jsonl").write_bytes(line(prompt="a", chosen="b"))
    for path, hint in (
        (tmp_path / "pirat.jsonl", f"did you mean {tmp_path / 'pirate.jsonl'}?"),
        (tmp_path / "zzz", "holds pirate.jsonl"),
        (tmp_path, "holds pirate.jsonl"),
    ):
        with pytest.raises(DataError) as caught:
            read_rows(path)
        assert hint in (caught.value.hint or "")


def test_reading_rows_needs_no_torch() -> None:
    code = (
        "import sys, pv.vecstore.data.rows; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0
