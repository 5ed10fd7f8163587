"""Files of rows: JSON lines, one JSON array, csv, parquet. Each gives the same: numbered objects of keys and values.

To add a container is to add it to `unpack`. What is compressed, or is no table at all, is named, with the way out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NoReturn

from pv.registry import canonical
from pv.registry.errors import DataError, FormatError
from pv.vecstore.data.formats import HINT

__all__ = ["Counted", "Numbered", "json_lines", "unpack"]

Counted = Literal["line", "row"]
Numbered = tuple[int, Any]

PACKED = {
    b"\x1f\x8b": ("gzip", "gunzip -k {}"),
    b"\x28\xb5\x2f\xfd": ("zstd", "zstd -d {}"),
    b"BZh": ("bzip2", "bunzip2 -k {}"),
    b"\xfd7zXZ": ("xz", "unxz -k {}"),
    b"PK\x03\x04": ("zip (as .zip and .xlsx are)", "unpack it, or save the table as csv"),
}
"""Beginnings of files that hold rows only after another step."""

MAX_CHARACTERS = 1 << 30
"""In a parquet file, whose size says nothing of what is in it. In other files there are no more than bytes."""
BATCH = 64
"""Rows of it that are unpacked at once."""

_BOM = b"\xef\xbb\xbf"
_AFTER_BRACKET = re.compile(r"\[\s*")
_BETWEEN = re.compile(r"\s*([,\]])\s*")


def unpack(data: bytes, source: str) -> tuple[Counted, Iterator[Numbered]]:
    """What the numbers count, and the rows of a file. Raises DataError naming source and line."""
    for magic, (name, way_out) in PACKED.items():
        if data.startswith(magic):
            raise DataError(f"{source} is {name}, not rows", hint=way_out.format(source))
    if data.startswith(b"PAR1"):
        return "row", _parquet(data, source)
    data = data.removeprefix(_BOM)
    if source.lower().endswith((".csv", ".tsv")):
        return "row", _csv(data, source, "\t" if source.lower().endswith(".tsv") else ",")
    if _is_array(data):
        return "row", _array(data, source)
    return "line", json_lines(data, source)


def json_lines(data: bytes, source: str) -> Iterator[Numbered]:
    """Blank lines are counted, and skipped."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        if line.strip():
            yield number, _load(line, f"{source}:{number}", line if number == 1 else b"")


def _is_array(data: bytes) -> bool:
    """One list of objects, not lines of which the first is a list."""
    return re.match(rb"\s*\[\s*[\]{]", data) is not None


def _array(data: bytes, source: str) -> Iterator[Numbered]:
    """Item by item: what limits the size of a document is for each, as it is for a line."""
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not valid JSON: {error}", hint="save it as UTF-8") from error
    decoder, number = json.JSONDecoder(), 0
    at = _AFTER_BRACKET.match(text).end()  # type: ignore[union-attr]
    end_of_array = text.find("]", at, at + 1) + 1  # 0 until it is known
    while not end_of_array:
        number += 1
        where = f"{source}: row {number}"
        try:
            _, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not valid JSON: {error}", hint=HINT) from error
        yield number, _load(text[at:end].encode(), where, b"")
        found = _BETWEEN.match(text, end)
        if found is None:
            raise DataError(f"{where}: not valid JSON: ',' or ']' must follow it", hint=HINT)
        at, end_of_array = found.end(), found.end(1) if found[1] == "]" else 0
    if end_of_array != len(text):
        raise DataError(f"{source}: something follows the array", hint="one array a file, or JSON lines")


def _load(document: bytes, where: str, line: bytes) -> Any:
    try:
        return canonical.loads(document, what=where)
    except FormatError as error:
        why = str(error).removeprefix(where).lstrip(": ").removeprefix("is ")
        raise DataError(f"{where}: {why}", hint=_hint_of(line)) from error


def _hint_of(line: bytes) -> str:
    """What to do about a line that is no JSON."""
    start = line.strip()
    if start in (b"{", b"["):
        return "one object a line: jq -c . FILE writes it so; or one JSON array"
    if start[:1] not in (b"{", b"[") and start.count(b",") and start.isascii():
        return "a table with commas is read as csv if its name ends in .csv"
    return HINT


def _csv(data: bytes, source: str, delimiter: str) -> Iterator[Numbered]:
    """The first line names the columns; an empty cell is null."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{source}: not UTF-8: {error}", hint="save it as UTF-8") from error
    limit = csv.field_size_limit(max(len(text), 1))  # the whole file is in memory already
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(
            f"{source}: not valid csv: {error}", hint='a text with commas or quotes is quoted: "..."'
        ) from error
    finally:
        csv.field_size_limit(limit)
    names = [name.strip() for name in table[0]] if table else []
    _check_names(names, source)
    for number, cells in enumerate(table[1:], start=1):
        if not any(cells):
            continue
        if len(cells) != len(names):
            raise DataError(
                f"{source}: row {number}: {len(cells)} cells, and {len(names)} columns",
                hint='a text with commas is quoted: "..."; the first line names the columns',
            )
        yield number, {name: cell or None for name, cell in zip(names, cells, strict=True)}


def _parquet(data: bytes, source: str) -> Iterator[Numbered]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise DataError(
            f"{source} is parquet, which pyarrow reads, and pyarrow is not installed",
            hint="pip install 'personavec[parquet]'",
        ) from error
    number = characters = 0
    try:
        file = parquet.ParquetFile(pyarrow.BufferReader(data))
        _check_names(file.schema_arrow.names, source)
        for batch in file.iter_batches(batch_size=BATCH):
            for row in batch.to_pylist():
                number += 1
                characters += _characters(row)
                if characters > MAX_CHARACTERS:
                    raise DataError(
                        f"{source}: more than {MAX_CHARACTERS >> 30} Gi characters of text", hint="split it"
                    )
                yield number, row
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
        _broken(source, error)


def _characters(row: object) -> int:
    """Of all its texts; a few bytes of parquet can stand for any number of the same."""
    found, pending = 0, [row]
    while pending:
        match pending.pop():
            case str() | bytes() as text:
                found += len(text)
            case dict() as inner:
                pending += inner.values()
            case list() as inner:
                pending += inner
    return found


def _check_names(names: Sequence[str], source: str) -> None:
    if twice := sorted(name for name, times in Counter(names).items() if times > 1):
        raise DataError(f"{source}: column {twice[0][:40]!r} is there twice", hint="rename one")


def _broken(source: str, error: Exception) -> NoReturn:
    raise DataError(
        f"{source}: not valid parquet: {' '.join(str(error).split())[:200]}", hint="fetch it again"
    ) from error
