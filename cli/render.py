"""Tables and one-line forms. Values come in as data; what goes out is text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from io import StringIO

import click

from pv.cli.say import plain
from pv.registry import words
from pv.registry.changes import Change
from pv.registry.persona import Behaviour, Persona
from pv.registry.words import combine_words, number
from pv.vecstore.publish.words import interval

__all__ = [
    "behaviour_line",
    "change_lines",
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
    """A plain table: headers, aligned columns; numbers to the right."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = [list(row) for row in rows]
    drawn = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", pad_edge=False)
    for index, name in enumerate(header):
        numeric = rows and all(_numeric(row[index]) for row in rows)
        drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    out = StringIO()
    seen = shutil.get_terminal_size().columns if sys.stdout.isatty() else WIDEST  # a pipe has no edge
    columns = width or min(seen, WIDEST)
    Console(file=out, width=columns, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _numeric(cell: str) -> bool:
    return (
        cell == "-"
        or cell.lstrip("+-−").replace(".", "").replace("%", "").replace(",", "").split(" ")[0].isdigit()
    )


def size(nbytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def counted(number: int, noun: str) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def behaviour_line(name: str, behaviour: Behaviour) -> str:
    return plain(words.behaviour_line(name, behaviour))


def persona_line(persona: Persona) -> str:
    return plain(words.persona_line(persona))


def change_lines(changes: Iterable[Change]) -> list[str]:
    """A line each, coloured as in a diff."""
    colours = {"+": "green", "-": "red", "~": "yellow"}
    lines = [plain(words.change_line(change)) for change in changes]
    return [click.style(line, fg=colours[line[0]]) for line in lines]
