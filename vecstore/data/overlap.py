"""Training rows among the rows that a behaviour is measured on: what is measured on those is not held out.

Two texts are the same if they are so without case, white space and Unicode's compatible spellings. A row is a training
row if one of those has its prompt and its chosen answer; if only the prompt, it is counted apart.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Row, Rows

__all__ = ["NAMED", "Overlap", "overlap"]

LONG_RUN = 256  # marks in a row; of a writing, there are a handful
NAMED = 10  # lines that are named; all are counted


@dataclass(frozen=True, slots=True)
class Overlap:
    """`rows` are training rows; of `prompts` others, only the prompt is that of one. `lines` says where the first of
    those rows are in their file, or, if there are none, of those prompts. The training rows of the behaviours
    `unknown` are not at hand."""

    rows: int = 0
    prompts: int = 0
    lines: tuple[int, ...] = ()
    unknown: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "prompts": self.prompts,
            "lines": list(self.lines),
            "unknown": list(self.unknown),
        }

    @staticmethod
    def read(document: object) -> Overlap | None:
        """What a score or a provenance says; None if it says nothing, or not in this form."""
        match document:
            case {"rows": int(rows), "prompts": int(prompts), "lines": [*lines], "unknown": [*unknown]}:
                if all(type(x) is int for x in (rows, prompts, *lines)) and all(
                    isinstance(name, str) for name in unknown
                ):
                    return Overlap(rows, prompts, tuple(lines), tuple(unknown))
        return None

    def without_knowing(self, unknown: Iterable[str]) -> Overlap:
        """The same, and the training rows of these behaviours were not there to compare with."""
        return replace(self, unknown=tuple(sorted(unknown)))


def overlap(measured: Rows, trained: Iterable[Rows]) -> Overlap:
    """Which of the rows that are measured on are training rows."""
    answers: dict[str, set[str]] = {}
    for rows in trained:
        for row in rows:
            answers.setdefault(_prompt(row), set()).add(_folded(row.chosen))
    known = [answers.get(_prompt(row)) for row in measured]
    seen = [i for i, found in enumerate(known) if found and _folded(measured[i].chosen) in found]
    same = [i for i, found in enumerate(known) if found and _folded(measured[i].chosen) not in found]
    lines = measured.lines or range(1, len(measured) + 1)
    return Overlap(len(seen), len(same), tuple(lines[i] for i in (seen or same)[:NAMED]))


def _prompt(row: Row) -> str:
    return "\n".join(_folded(message.content) for message in row.prompt)


def _folded(text: str) -> str:
    """Unicode's compatibility caseless matching (D146), and no white space before it or after it.

    A run of combining marks is put in order in quadratic time: a text with one that no writing has stays as it is.
    """
    text = "".join(text.split())
    if len(text) >= LONG_RUN and not text.isascii() and _has_long_run(text):
        return text
    text = unicodedata.normalize("NFD", text).casefold()
    text = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", text).casefold())
    return "".join(text.split())


def _has_long_run(text: str) -> bool:
    run = 0
    for character in text:
        marks = unicodedata.combining(character) or character in "\uff9e\uff9f"  # marks once decomposed
        run = run + 1 if marks else 0
        if run >= LONG_RUN:
            return True
    return False
