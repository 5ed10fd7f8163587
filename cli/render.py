"""Tables and one-line forms. Values come in as data; what goes out is text."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from pv.cli.say import plain
from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona

__all__ = [
    "behaviour_line",
    "columns",
    "combine_words",
    "conflict_side",
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
    Console(file=out, width=width or columns(), color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def columns() -> int:
    """How wide a table may be: a pipe has no edge."""
    return min(shutil.get_terminal_size().columns, WIDEST) if sys.stdout.isatty() else WIDEST


def _numeric(cell: str) -> bool:
    return (
        cell == "-"
        or cell.lstrip("+-−").replace(".", "").replace("%", "").replace(",", "").split(" ")[0].isdigit()
    )


def number(value: float) -> str:
    """A weight as a person types it."""
    return f"{value:g}"


def size(nbytes: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= scale:
            return f"{nbytes / scale:.3g} {unit}"
    return f"{nbytes} B"


def counted(number: int, noun: str) -> str:
    """`1 tensor`, `2 tensors`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def interval(mean: float, low: float, high: float, digits: int = 2) -> str:
    return f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def behaviour_line(name: str, behaviour: Behaviour) -> str:
    """`listening 1`; with several terms `listening 1 × (1·8d21…, -1·33ab…)`; with modules `(*.mlp.* × 0.5)` too."""
    line = f"{name} {number(behaviour.weight)}"
    if len(behaviour.terms) != 1 or behaviour.terms[0].coefficient != 1:
        line += f" × ({', '.join(f'{number(t.coefficient)}·{t.vector[:8]}' for t in behaviour.terms)})"
    return line + (f" {module_words(behaviour.modules)}" if behaviour.modules else "")


def module_words(modules: Mapping[str, float]) -> str:
    return f"({', '.join(f'{plain(pattern)} × {number(factor)}' for pattern, factor in sorted(modules.items()))})"


def combine_words(combine: Combine) -> str:
    options = ", ".join(
        f"{key} {number(value) if isinstance(value, float) else value}"
        for key, value in combine.options.items()
    )
    return f"{combine.method} ({options})" if options else combine.method


def conflict_side(value: Any) -> str:
    """One side of a conflict, which comes as JSON: a behaviour, a combine rule, or a plain value."""
    match value:
        case None:
            return "(absent)"
        case {"weight": weight, "terms": [*terms], "modules": modules}:
            words = ", ".join(f"{number(factor)}·{vector[:12]}" for factor, vector in terms)
            return f"weight {number(weight)} × ({words})" + (f" {module_words(modules)}" if modules else "")
        case {"method": str(method), **options}:
            return combine_words(Combine(method, {str(key): option for key, option in options.items()}))
    return str(value)


def persona_line(persona: Persona) -> str:
    parts = [behaviour_line(name, persona.behaviours[name]) for name in sorted(persona.behaviours)]
    return "  ".join(parts) if parts else "(base)"
