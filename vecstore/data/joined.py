"""Rows of several files as one set, which says nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from pv.registry.errors import DataError
from pv.vecstore.data.row import Row, Rows
from pv.vecstore.data.rows import as_rows

__all__ = ["RowFiles", "joined"]

RowFiles = Rows | str | PathLike[str] | Sequence[Rows | str | PathLike[str]]


def joined(several: RowFiles) -> Rows:
    """One set, or several one after another. Raises DataError for a row that two of them have, or for no set at all:
    rows that count twice would make intervals narrower than they are.
    """
    if isinstance(several, Rows | str | PathLike):
        return as_rows(several)
    sets = [as_rows(one) for one in several]
    if not sets:
        raise DataError("no rows were given", hint="name at least one file of rows")
    if len(sets) == 1:
        return sets[0]
    seen: dict[Row, str] = {}
    for one in sets:
        for i, row in enumerate(one):
            if row in seen:
                raise DataError(f"{one.where(i)}: the same row is in {seen[row]}", hint="name each row once")
        seen |= dict.fromkeys(one, one.source)
    # Counted in rows: line 31 of two files is no line of either.
    return Rows(tuple(row for one in sets for row in one), _name(sets), counted="row")


def _name(sets: Sequence[Rows]) -> str:
    return " + ".join(Path(one.source).name for one in sets)
