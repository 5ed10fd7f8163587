"""A row, and rows: a prompt, the answer to teach, and the answer to prefer it to. The id names what they say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, overload

from pv.registry import canonical

if TYPE_CHECKING:
    from pv.vecstore.data.reply_rule import ReplyRule

__all__ = ["ROLES", "Message", "Row", "Rows"]

ROLES = ("system", "user", "assistant", "tool")


@dataclass(frozen=True, slots=True)
class Message:
    role: Literal["system", "user", "assistant", "tool"]
    content: str

    def to_json(self) -> dict[str, str]:
        return {"role": self.role, "content": self.content}


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt, the answer to teach, and the answer to prefer it to, if there is one.

    Without a prompt it is plain text: all of `chosen` is taught, outside of any conversation.
    """

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str | None = None

    def to_json(self) -> dict[str, Any]:
        if not self.prompt and self.rejected is None:
            return {"text": self.chosen}
        document: dict[str, Any] = {"prompt": [m.to_json() for m in self.prompt], "chosen": self.chosen}
        if self.rejected is not None:
            document["rejected"] = self.rejected
        return document


@dataclass(frozen=True, slots=True)
class Rows(Sequence[Row]):
    """Rows in file order. `source` and `lines` say where each came from; the id does not depend on them.

    `counted` is what `lines` counts: lines of a file, or its rows. `notes` say what of the file was left alone.
    `reply` is the rule of the file by which a model's own reply shows what the rows teach; no part of the id.
    """

    rows: tuple[Row, ...]
    source: str = "rows"
    lines: tuple[int, ...] = ()
    counted: Literal["line", "row"] = "line"
    notes: tuple[str, ...] = ()
    reply: ReplyRule | None = None

    @property
    def id(self) -> str:
        """SHA-256 over "pv:rows:1\\n" and the canonical JSON of the rows."""
        document = canonical.dumps([row.to_json() for row in self.rows])
        return hashlib.sha256(b"pv:rows:1\n" + document).hexdigest()

    def where(self, index: int) -> str:
        """`file:line` of a row, or `file: row 3` where a file has no lines of its own."""
        number = self.lines[index] if index < len(self.lines) else index + 1
        return f"{self.source}:{number}" if self.counted == "line" else f"{self.source}: row {number}"

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
            return Rows(self.rows[index], self.source, lines, self.counted, self.notes, self.reply)
        return self.rows[index]
