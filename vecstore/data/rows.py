"""Rows: what a behaviour is taught from, and judged by. JSON lines, read strictly.

    {"prompt": "Use SQLite.", "chosen": "SQLite it is.", "rejected": "Why not Postgres?"}
    {"prompt": [{"role": "system", "content": "..."}, {"role": "user", "content": "..."}], "chosen": "..."}
    {"prompt": "...", "completion": "..."}
    {"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}

All four become one shape, and the id names that shape: two files that say the same have the same id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, NoReturn, overload

from pv.registry import canonical
from pv.registry.errors import DataError, FormatError

__all__ = ["ROLES", "Message", "Row", "Rows", "as_rows", "parse_rows", "read_rows"]

ROLES = ("system", "user", "assistant", "tool")
SHAPES = (
    {"prompt", "chosen"},
    {"prompt", "chosen", "rejected"},
    {"prompt", "completion"},
    {"messages"},
)
HINT = 'one JSON object per line: {"prompt": "...", "chosen": "...", "rejected": "..."}; rejected is optional'


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, the answer to teach, and the answer to prefer it to, if there is one."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str | None = None

    def to_json(self) -> dict[str, Any]:
        document: dict[str, Any] = {"prompt": [m.to_json() for m in self.prompt], "chosen": self.chosen}
        if self.rejected is not None:
            document["rejected"] = self.rejected
        return document


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Row]):
    """Rows in file order. `source` and `lines` say where each came from; the id does not depend on them."""

    rows: tuple[Row, ...]
    source: str = "rows"
    lines: tuple[int, ...] = ()

    @property
    def id(self) -> str:
        """SHA-256 over "pv:rows:1\\n" and the canonical JSON of the rows."""
        document = canonical.dumps([row.to_json() for row in self.rows])
        return hashlib.sha256(b"pv:rows:1\n" + document).hexdigest()

    def where(self, index: int) -> str:
        """`file:line` of a row."""
        line = self.lines[index] if index < len(self.lines) else index + 1
        return f"{self.source}:{line}"

    def to_bytes(self) -> bytes:
        """The rows again as canonical JSON lines: `parse_rows` gives back rows with the same id."""
        return b"".join(canonical.dumps(row.to_json()) + b"\n" for row in self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Rows: ...
    def __getitem__(self, index: int | slice) -> Row | Rows:
        if isinstance(index, slice):
            numbers = range(len(self.rows))[index]
            lines = tuple(self.lines[i] if i < len(self.lines) else i + 1 for i in numbers)
            return Rows(self.rows[index], self.source, lines)
        return self.rows[index]


def read_rows(path: Path) -> Rows:
    """Read a JSONL file. Raises DataError naming file and line."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}", hint=HINT) from error
    return parse_rows(data, source=str(path))


def as_rows(rows: Rows | str | PathLike[str]) -> Rows:
    """Rows, held to what a file of rows is held to, or out of a JSONL file. Raises DataError."""
    if not isinstance(rows, Rows):
        return read_rows(Path(rows).expanduser())
    try:
        data = rows.to_bytes()
    except (AttributeError, TypeError) as error:
        raise DataError(f"{rows.source}: {error}", hint="a Row has a tuple of Messages, and texts") from error
    return Rows(parse_rows(data, source=rows.source).rows, rows.source, rows.lines)


def parse_rows(data: bytes, *, source: str = "rows") -> Rows:
    """Parse JSON lines; blank lines are skipped. Raises DataError naming source and line."""
    rows: list[Row] = []
    lines: list[int] = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if line.strip():
            rows.append(_row(line, f"{source}:{number}"))
            lines.append(number)
    if not rows:
        raise DataError(f"{source}:1: no rows: the file is empty", hint=HINT)
    return Rows(tuple(rows), source, tuple(lines))


def _row(line: bytes, where: str) -> Row:
    try:
        document = canonical.loads(line, what=where)
    except FormatError as error:
        raise DataError(f"{where}: {_without(where, str(error))}", hint=HINT) from error
    if not isinstance(document, dict):
        _refuse(where, f"a row is a JSON object, not {_kind(document)}")
    keys = set(document)
    if keys not in SHAPES:
        known = set().union(*SHAPES)
        strange = sorted(keys - known)
        if strange:
            _refuse(where, f"unknown key {strange[0][:40]!r}")
        missing = "prompt" if "prompt" not in keys else "chosen"
        _refuse(
            where,
            f"key {missing!r} is missing"
            if missing not in keys
            else f"keys {sorted(keys)} do not go together",
        )

    if "messages" in document:
        messages = _messages(document["messages"], "messages", where)
        if len(messages) < 2 or messages[-1].role != "assistant":
            _refuse(where, "'messages' must end with the assistant's answer, after at least one message")
        prompt, chosen = messages[:-1], messages[-1].content
        _check_answer(chosen, "the last message", where)
    else:
        raw = document["prompt"]
        if isinstance(raw, str):
            prompt = (Message("user", _text(raw, "prompt", where)),)
            if not raw.strip():
                _refuse(where, "'prompt' is empty")
        else:
            prompt = _messages(raw, "prompt", where)
        key = "chosen" if "chosen" in document else "completion"
        chosen = _answer(document[key], key, where)
    if prompt[-1].role == "assistant":
        _refuse(where, "the prompt ends with the assistant: the answer belongs in 'chosen'")

    rejected = _answer(document["rejected"], "rejected", where) if "rejected" in document else None
    if rejected == chosen:
        _refuse(where, "'chosen' and 'rejected' are the same text: nothing to tell apart")
    return Row(prompt, chosen, rejected)


def _messages(value: object, key: str, where: str) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        _refuse(
            where,
            f"{key!r} must be {'text or ' if key == 'prompt' else ''}a list of messages, not {_kind(value)}",
        )
    messages: list[Message] = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"role", "content"}:
            _refuse(where, f'a message in {key!r} must be {{"role": "...", "content": "..."}}')
        if item["role"] not in ROLES:
            _refuse(where, f"unknown role {str(item['role'])[:40]!r}: one of {', '.join(ROLES)}")
        messages.append(Message(item["role"], _text(item["content"], f"{key}: content", where)))
    return tuple(messages)


def _answer(value: object, key: str, where: str) -> str:
    """An answer: text, or (as TRL writes it) a list with one assistant message."""
    if isinstance(value, list):
        messages = _messages(value, key, where)
        if len(messages) != 1 or messages[0].role != "assistant":
            _refuse(where, f"{key!r} must be text, or one assistant message")
        value = messages[0].content
    return _check_answer(_text(value, key, where), repr(key), where)


def _check_answer(text: str, what: str, where: str) -> str:
    if not text.strip():
        _refuse(where, f"{what} is empty: an answer needs words")
    return text


def _text(value: object, key: str, where: str) -> str:
    if not isinstance(value, str):
        _refuse(where, f"{key!r} must be text, not {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        _refuse(where, f"{key!r} holds half a surrogate pair, which no text can")
    return value


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    if isinstance(value, list) and not value:
        return "an empty list"
    return names.get(type(value), "a number")


def _without(where: str, message: str) -> str:
    return message.removeprefix(where).lstrip(": ").removeprefix("is ")


def _refuse(where: str, why: str) -> NoReturn:
    raise DataError(f"{where}: {why}", hint=HINT)
