"""Rows: what a behaviour is taught from, and judged by. Read strictly; docs/rows.md has every format.

    {"prompt": "Use SQLite.", "chosen": "SQLite it is.", "rejected": "Why not Postgres?"}

All formats (formats.py) in all files (containers.py) become one shape, and the id names that shape: two files that say
the same have the same id.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from difflib import get_close_matches
from os import PathLike
from pathlib import Path

from pv.registry.errors import DataError
from pv.vecstore.data.containers import Counted, Numbered, json_lines, unpack
from pv.vecstore.data.formats import HINT, format_of, strangers
from pv.vecstore.data.reply_rule import ReplyRule, is_reply_rule
from pv.vecstore.data.row import ROLES, Message, Row, Rows
from pv.vecstore.data.values import RowError, kind

__all__ = ["ROLES", "Message", "Row", "Rows", "as_rows", "ignored", "parse_rows", "read_file", "read_rows"]

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
NAMED = 6  # files and columns that a message lists


def read_rows(path: str | PathLike[str]) -> Rows:
    """Read a file of rows: JSON lines, a JSON array, csv or parquet. Raises DataError naming file and line."""
    return parse_rows(read_file(path), source=str(Path(path).expanduser()))


def read_file(path: str | PathLike[str]) -> bytes:
    """The bytes of a file of rows. Raises DataError that says what may have been meant."""
    path = Path(path).expanduser()
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"no file {path}", hint=_beside(path)) from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder, not a file of rows", hint=_inside(path)) from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}", hint="check its rights"
        ) from error


def as_rows(rows: Rows | str | PathLike[str]) -> Rows:
    """Rows, held to what a file of rows is held to, or out of a file. Raises DataError."""
    if not isinstance(rows, Rows):
        return read_rows(rows)
    try:
        data = rows.to_bytes()
    except (AttributeError, TypeError) as error:
        raise DataError(f"{rows.source}: {error}", hint="a Row has a tuple of Messages, and texts") from error
    parsed = _collect("line", json_lines(data, rows.source), rows.source)
    return Rows(parsed.rows, rows.source, rows.lines, rows.counted, rows.notes, rows.reply)


def parse_rows(data: bytes, *, source: str = "rows") -> Rows:
    """Rows from the bytes of a file; blank lines are skipped. Raises DataError naming source and line."""
    return _collect(*unpack(data, source), source)


def _collect(counted: Counted, found: Iterator[Numbered], source: str) -> Rows:
    rows: list[Row] = []
    numbers: list[int] = []
    unused: set[str] = set()
    refused = 0
    reply: ReplyRule | None = None
    for place, (number, document) in enumerate(found):
        where = f"{source}:{number}" if counted == "line" else f"{source}: row {number}"
        if place == 0 and is_reply_rule(document):
            reply = _reply_rule(document, where)
            continue
        row = _row(document, where, unused)
        if row is None:
            refused += 1
        else:
            rows.append(row)
            numbers.append(number)
    if refused and not rows:
        raise DataError(
            f"{source}: all {refused} rows have label false, and pv learns from an answer to give",
            hint='pair each with a good answer: {"prompt": "...", "chosen": "...", "rejected": "..."}',
        )
    if not rows:
        raise DataError(f"{source}:1: no rows: the file is empty", hint=HINT)
    notes = _notes(rows, unused, refused, source)
    return Rows(tuple(rows), source, tuple(numbers), counted, notes, reply)


def _reply_rule(document: dict[str, object], where: str) -> ReplyRule:
    try:
        return ReplyRule.read(document["reply"])
    except RowError as error:
        raise DataError(f"{where}: {error}", hint=error.hint) from error


def _row(document: object, where: str, unused: set[str]) -> Row | None:
    hint = HINT
    try:
        if not isinstance(document, dict):
            raise RowError(f"a row is a JSON object, not {kind(document)}")
        form = format_of(document)
        hint = form.hint
        unused |= strangers(document, form)
        return form.read(document)
    except RowError as error:
        raise DataError(f"{where}: {error}", hint=error.hint or hint) from error


def _notes(rows: list[Row], unused: set[str], refused: int, source: str) -> tuple[str, ...]:
    """What of a file was ignored, or means less than it may seem."""
    name, notes = Path(source).name, [*ignored(unused, source)]
    if refused:
        notes.append(
            f"{name}: {refused} of {refused + len(rows)} rows have label false and are left out: pv learns from an "
            "answer to give, alone or against a rejected one"
        )
    if plain := sum(not row.prompt for row in rows):
        notes.append(
            f"{name}: {plain} of {len(rows)} rows are plain text without a prompt: all of it counts as the answer"
        )
    return tuple(notes)


def ignored(unused: Collection[str], source: str) -> tuple[str, ...]:
    """The note on columns that mean nothing to pv, if there are any."""
    if not unused:
        return ()
    more = f" and {len(unused) - NAMED} more" if len(unused) > NAMED else ""
    columns = ", ".join(key[:40] for key in sorted(unused)[:NAMED])
    return (f"{Path(source).name}: ignored columns: {columns}{more}",)


def _beside(path: Path) -> str:
    """What may have been meant by a file that is not there."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = sorted(file.name for file in path.parent.iterdir() if file.is_file())
    stems = {Path(name).stem: name for name in sorted(names, key=lambda name: name.endswith(path.suffix))}
    if close := get_close_matches(path.stem, stems, 1):  # an ending in common makes no two names alike
        return f"did you mean {path.parent / stems[close[0]]}?"
    return _inside(path.parent)


def _inside(folder: Path) -> str:
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(SUFFIXES))
    if not names:
        return f"{folder} holds no file of rows ({', '.join(SUFFIXES)})"
    more = ", ..." if len(names) > NAMED else ""
    return f"{folder} holds {', '.join(names[:NAMED])}{more}"
