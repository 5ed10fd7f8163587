"""Choices in both orders: a model may prefer (A) wherever it stands.

    (A) Yes           (A) No
    (B) No            (B) Yes       the wanted answer is (A) in one, (B) in the other

A row whose prompt lists choices, and whose answers are two of their letters, is measured in both orders, and its margin
is the mean of both. Other rows are measured as they are.
"""

from __future__ import annotations

import re
from dataclasses import replace

from pv.vecstore.data.row import Message, Row, Rows

__all__ = ["both_orders"]

_CHOICE = re.compile(r"^([ \t]*\(([A-Z])\)[ \t]*)(\S.*?)([ \t]*)$", re.MULTILINE)
_LETTER = re.compile(r"\(?([A-Z])\)?")


def both_orders(rows: Rows) -> tuple[Rows, list[int]]:
    """The rows in every order, and which row each of them is of."""
    found: list[Row] = []
    of: list[int] = []
    for index, row in enumerate(rows):
        for one in (row, _turned(row)):
            if one is not None:
                found.append(one)
                of.append(index)
    lines = tuple(rows.lines[i] if i < len(rows.lines) else i + 1 for i in of)
    return replace(rows, rows=tuple(found), lines=lines), of


def _turned(row: Row) -> Row | None:
    """The same question with the two choices in each other's places; None if it lists none."""
    if not row.prompt or row.rejected is None:
        return None
    chosen, rejected = (_LETTER.fullmatch(answer.strip()) for answer in (row.chosen, row.rejected))
    question = row.prompt[-1]
    choices = {match[2]: match for match in _CHOICE.finditer(question.content)}
    if not chosen or not rejected or len(choices) != len(_CHOICE.findall(question.content)):
        return None
    if chosen[1] == rejected[1] or not {chosen[1], rejected[1]} <= choices.keys():
        return None
    texts = {chosen[1]: choices[rejected[1]][3], rejected[1]: choices[chosen[1]][3]}

    def turned(match: re.Match[str]) -> str:
        return f"{match[1]}{texts.get(match[2], match[3])}{match[4]}"

    asked = Message(question.role, _CHOICE.sub(turned, question.content))
    return Row((*row.prompt[:-1], asked), row.rejected, row.chosen)
