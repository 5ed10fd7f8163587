"""Files of rows: each holds the same rows; what is none of them is named, with the way out."""

from __future__ import annotations

import csv
import gzip
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pv.registry.errors import DataError
from pv.vecstore.data.rows import parse_rows, read_rows

ROWS: list[dict[str, Any]] = [
    {"prompt": 'Hi, "you"', "chosen": "Yo\nthere", "rejected": "Nö"},
    {"prompt": "Ho", "chosen": "Yes", "rejected": None},
]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def table(delimiter: str = ",") -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(ROWS[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return b"\xef\xbb\xbf" + out.getvalue().encode()  # as Excel writes it


def parquet(rows: list[dict[str, Any]]) -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    sink = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def test_all_of_them_hold_the_same_rows(tmp_path: Path) -> None:
    """Arrays and csv are read too."""
    expected = parse_rows(LINES)
    for name, data in (
        ("a.json", json.dumps(ROWS).encode()),
        ("b.json", b"\n" + json.dumps(ROWS, indent=2).encode() + b"\n"),
        ("c.jsonl", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
        ("d.csv", table()),
        ("e.TSV", table("\t")),
        ("f.json", LINES),
    ):
        (tmp_path / name).write_bytes(data)
        found = read_rows(tmp_path / name)
        assert (found.id, found.notes) == (expected.id, ()), name
    assert read_rows(tmp_path / "d.csv").where(1) == f"{tmp_path / 'd.csv'}: row 2"
    assert read_rows(tmp_path / "f.json").where(1) == f"{tmp_path / 'f.json'}:2"


def test_parquet(tmp_path: Path) -> None:
    talk = {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo", "name": "x"}]
    }
    for rows, says in ((ROWS, ""), ([talk], "a message in 'messages'")):
        path = tmp_path / "rows.parquet"
        path.write_bytes(parquet(rows))
        if says:
            with pytest.raises(DataError, match=says):
                read_rows(path)
        else:
            assert read_rows(path).id == parse_rows(LINES).id
    plain = [
        {
            "messages": [
                {"role": "user", "content": "Hi", "name": None},
                {"role": "assistant", "content": "Yo"},
            ]
        }
    ]
    assert parse_rows(parquet(plain)).rows == parse_rows(b'{"prompt": "Hi", "chosen": "Yo"}').rows
    whole = parquet(ROWS)
    for torn in (whole[:-20], whole[: len(whole) // 2], b"PAR1", whole[:4] + b"x" * 40 + b"PAR1"):
        with pytest.raises(DataError, match="not valid parquet"):
            parse_rows(torn, source="torn")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_bytes(b"PAR1....PAR1")
    code = (
        "import sys; sys.modules['pyarrow'] = None\n"
        "from pv.registry.errors import DataError\nfrom pv.vecstore.data.rows import read_rows\n"
        "try: read_rows(sys.argv[1])\n"
        "except DataError as error: print(error, error.hint)"
    )
    path = str(tmp_path / "rows.parquet")
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert "is parquet" in done.stdout and "pip install 'personavec[parquet]'" in done.stdout


@pytest.mark.parametrize(
    ("name", "data", "says", "hint"),
    [
        ("a.jsonl.gz", gzip.compress(LINES), "is gzip, not rows", "gunzip -k a.jsonl.gz"),
        ("a.zst", b"\x28\xb5\x2f\xfd123", "is zstd", "zstd -d a.zst"),
        ("a.xlsx", b"PK\x03\x04rest", "is zip", "csv"),
        ("a.json", b'{\n "prompt": "a",\n "chosen": "b"\n}', "a.json:1: not valid JSON", "jq -c"),
        ("a.txt", b"prompt,chosen\na,b\n", "a.txt:1: not valid JSON", "ends in .csv"),
        ("a.json", b'[{"prompt": "a", "chosen": "b"} {"prompt": "c"}]', "row 1: not valid JSON: ','", "row"),
        ("a.json", b'[{"prompt": "a", "chosen": "b"}] []', "something follows", "array"),
        ("a.json", b'[{"prompt": "a", "chosen": "b"}, ]', "row 2: not valid JSON", "row"),
        (
            "a.json",
            b'[{"prompt": "a", "chosen": "b"}, {"prompt": "a", "prompt": "b"}]',
            "row 2: not valid",
            "row",
        ),
        ("a.json", b'[{"prompt": "a", "chosen": "b"}, {"prompt": "\xff"}]', "not valid JSON", "UTF-8"),
        (
            "a.json",
            b'[{"prompt": "a", "chosen": "b"}, 7]',
            "row 2: a row is a JSON object, not a number",
            "row",
        ),
        ("a.json", b"[" * 4000 + b"{", "not valid JSON", "row"),
        ("a.json", b"[]", "no rows", "row"),
        ("a.json", b"[{", "row 1: not valid JSON", "row"),
        ("a.csv", b"prompt,chosen\na,b,c\n", "row 1: 3 cells, and 2 columns", "quoted"),
        ("a.csv", b'prompt,chosen\na,"b\n', "not valid csv", "quoted"),
        ("a.csv", b"prompt,prompt\na,b\n", "'prompt' is there twice", "rename"),
        ("a.csv", b"prompt,chosen\n,b\n", "row 1: 'prompt' must be text or messages, not null", "preference"),
        ("a.csv", b"prompt,chosen\n\xff,b\n", "not UTF-8", "UTF-8"),
        ("a.csv", b"prompt,chosen\n\n", "no rows", "row"),
        ("a.csv", b"", "no rows", "row"),
    ],
)
def test_what_is_none_of_them_is_named(name: str, data: bytes, says: str, hint: str) -> None:
    with pytest.raises(DataError) as caught:
        parse_rows(data, source=name)
    assert says in str(caught.value) and str(caught.value).startswith(name)
    assert hint in (caught.value.hint or "")
    assert caught.value.exit_code == 2


def test_a_long_text_in_a_csv_is_read_whole() -> None:
    text = "long " * 100_000
    limit = csv.field_size_limit()
    assert parse_rows(f"prompt,chosen\na,{text}x\n".encode(), source="a.csv")[0].chosen == text + "x"
    assert csv.field_size_limit() == limit


def test_parquet_that_stands_for_far_more_text_than_it_has(tmp_path: Path) -> None:
    """A kilobyte that stands for 60 GB: one text in a dictionary, and 60 000 rows that name it."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    rows = 60_000
    prompts = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * rows, pyarrow.int32()), ["x" * 1_000_000]
    )
    written.write_table(
        pyarrow.table({"prompt": prompts, "chosen": ["a"] * rows}),
        tmp_path / "bomb.parquet",
        compression="zstd",
    )
    with pytest.raises(DataError, match="more than 1 Gi characters"):
        read_rows(tmp_path / "bomb.parquet")


def test_parquet_with_one_column_twice_or_bytes() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as written

    def said(table: Any) -> str:
        sink = io.BytesIO()
        written.write_table(table, sink)
        with pytest.raises(DataError) as caught:
            parse_rows(sink.getvalue(), source="rows.parquet")
        return str(caught.value)

    names = ["prompt", "chosen", "chosen"]
    twice = pyarrow.table([pyarrow.array(["a"]), pyarrow.array(["b"]), pyarrow.array(["c"])], names=names)
    assert said(twice) == "rows.parquet: column 'chosen' is there twice"
    assert "'chosen' must be text, not bytes" in said(pyarrow.table({"prompt": ["a"], "chosen": [b"b"]}))


def test_a_csv_of_very_many_columns() -> None:
    """Its names were counted in quadratic time: hours, for these."""
    names = ",".join(f"c{i}" for i in range(300_000))
    with pytest.raises(DataError, match=r"no known format|is missing"):
        parse_rows(f"{names}\n{'x,' * 299_999}x\n".encode(), source="rows.csv")
