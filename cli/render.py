"""Tables and one-line forms. Values come in as data; what goes out is text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import click

from pv.cli.say import plain
from pv.cli.terminal import cells, edge
from pv.registry import words
from pv.registry.changes import Change
from pv.registry.persona import Behaviour, Persona
from pv.registry.words import combine_words, number, size
from pv.vecstore.publish.words import interval

__all__ = [
    "behaviour_line",
    "change_lines",
    "columns",
    "combine_words",
    "counted",
    "interval",
    "number",
    "persona_line",
    "size",
    "table",
]

WIDEST = 160


def table(
    header: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    title: str | None = None,
    width: int | None = None,
) -> str:
    """A plain table: headers, aligned columns; numbers to the right. Cells break between words at the edge."""
    table = [[plain(cell) for cell in row] for row in (header, *rows)]
    room = (width or columns()) - 3 * len(header) + 1
    down = list(zip(*table, strict=True))
    widths = _widths(down, room)
    right = [len(table) > 1 and all(map(_numeric, cells[1:])) for cells in down]
    lines = [title] if title else []
    for at, row in enumerate(table):
        broken = [
            [line for part in cell.split("\n") for line in _broken(part, widths[i])]
            for i, cell in enumerate(row)
        ]
        for parts in zip_longest(*broken, fillvalue=""):
            padded = [_pad(part, widths[i], right=right[i]) for i, part in enumerate(parts)]
            lines.append(f" {'   '.join(padded)}".rstrip())
        if not at:
            lines.append(" " + "─" * (sum(widths) + 3 * len(widths) - 3))
    return "\n".join(lines)


def _widths(columns: Sequence[Sequence[str]], room: int) -> list[int]:
    """As wide as the longest cell; where that is too much, the widest gives way, down to its longest word.

    If the longest words together have no room, the longest of them are broken.
    """
    widths = [max(cells(line) for cell in column for line in cell.split("\n")) for column in columns]
    words = [max(cells(word) for cell in column for word in cell.split() or [""]) for column in columns]
    for least in (words, [1] * len(words)):
        while sum(widths) > room:
            loose = [i for i, width in enumerate(widths) if width > least[i]]
            if not loose:
                break
            widths[max(loose, key=lambda i: widths[i])] -= 1
    return widths


def _broken(cell: str, width: int) -> list[str]:
    """A cell's lines: broken between words, and a word that is too long where it has a sign, if it has one."""
    words: list[str] = []
    for word in cell.split(" "):
        while cells(word) > width:
            cut = next((i for i in range(width, width // 2, -1) if word[i - 1] in "/._-,:="), width)
            words.append(word[:cut])
            word = word[cut:]
        words.append(word)
    lines = [words[0]]
    for word in words[1:]:
        if cells(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _pad(text: str, width: int, *, right: bool) -> str:
    space = " " * (width - cells(text))
    return space + text if right else text + space


def columns() -> int:
    """How wide a table may be: a pipe has no edge."""
    return min(edge() or WIDEST, WIDEST)


def _numeric(cell: str) -> bool:
    return (
        cell == "-"
        or cell.lstrip("+-−").replace(".", "").replace("%", "").replace(",", "").split(" ")[0].isdigit()
    )


def counted(number: int, noun: str) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def behaviour_line(name: str, behaviour: Behaviour, *, most: int | None = words.MOST_TERMS) -> str:
    return plain(words.behaviour_line(name, behaviour, most=most))


def persona_line(persona: Persona) -> str:
    return plain(words.persona_line(persona))


def change_lines(changes: Iterable[Change]) -> list[str]:
    """A line each, coloured as in a diff."""
    colours = {"+": "green", "-": "red", "~": "yellow"}
    lines = [plain(words.change_line(change)) for change in changes]
    return [click.style(line, fg=colours[line[0]]) for line in lines]
