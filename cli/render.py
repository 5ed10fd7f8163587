"""Tables and one-line forms. Values come in as data; what goes out is text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from pv.cli.say import plain
from pv.cli.terminal import cells, edge
from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona

__all__ = [
    "behaviour_line",
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
    """A plain table: headers, aligned columns; numbers to the right. Cells break between words at the edge."""
    table = [[plain(cell) for cell in row] for row in (header, *rows)]
    room = (width or min(edge() or WIDEST, WIDEST)) - 3 * len(header) + 1  # a pipe has no edge
    columns = list(zip(*table, strict=True))
    widths = _widths(columns, room)
    right = [len(table) > 1 and all(map(_numeric, cells[1:])) for cells in columns]
    lines = [title] if title else []
    for number, row in enumerate(table):
        broken = [
            [line for part in cell.split("\n") for line in _broken(part, widths[i])]
            for i, cell in enumerate(row)
        ]
        for parts in zip_longest(*broken, fillvalue=""):
            padded = [_pad(part, widths[i], right=right[i]) for i, part in enumerate(parts)]
            lines.append(f" {'   '.join(padded)}".rstrip())
        if not number:
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
