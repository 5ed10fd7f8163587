"""Conversations with several answers: a row for each of them, so that every answer is learnt from what it follows."""

from __future__ import annotations

from dataclasses import replace

from pv.registry.errors import DataError
from pv.vecstore.data.row import Row, Rows

__all__ = ["every_answer", "not_all_alike"]


def every_answer(rows: Rows) -> Rows:
    """The answers in a row's prompt become rows of their own before it: the context of each is what came before."""
    made: list[Row] = []
    lines: list[int] = []
    for index, row in enumerate(rows):
        for turn, message in enumerate(row.prompt):
            if message.role == "assistant" and turn and message.content.strip():
                made.append(Row(row.prompt[:turn], message.content))
                lines.append(_line(rows, index))
        made.append(row)
        lines.append(_line(rows, index))
    if len(made) == len(rows):
        return rows
    more = len(made) - len(rows)
    note = f"{more} answers within conversations are rows of their own: {len(made)} instead of {len(rows)}"
    return replace(rows, rows=tuple(made), lines=tuple(lines), notes=(*rows.notes, note))


def not_all_alike(rows: Rows) -> None:
    """Raises DataError where all rows are one and the same: a fault of whatever wrote the file."""
    if len(rows) > 1 and len(set(rows.rows)) == 1:
        raise DataError(
            f"{rows.source}: all {len(rows)} rows are the same row",
            hint="one row is enough to say that; rows that differ are what a behaviour is learnt from",
        )


def _line(rows: Rows, index: int) -> int:
    return rows.lines[index] if index < len(rows.lines) else index + 1
