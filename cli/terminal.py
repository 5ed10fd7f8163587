"""What may be sent to the terminal: the one place that decides about colour, cursor movement and line width.

Colour: not with NO_COLOR (no-color.org); FORCE_COLOR also into a pipe; not with TERM=dumb or CLICOLOR=0; else
where a stream is a terminal.
"""

from __future__ import annotations

import os
import re
import sys
import unicodedata

__all__ = ["cells", "colour", "cut", "edge", "moves", "wrap"]

DUMB = ("dumb", "unknown")
_ESCAPE = re.compile(r"(\x1b\[[0-9;]*m)")
_WORD = re.compile(r"(\s*)((?<=: )pv [a-z][a-z-]* .*|[^\s`]*`[^`]*`[^\s`]*|\S+)")
_COMMAND = re.compile(r"\s+pv [-a-zA-Z]")
_GRAPH = ("*", "|")


def colour() -> bool | None:
    """True, False, or None: where the stream is a terminal."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "") not in ("", "0"):
        return True
    return False if _dumb() or os.environ.get("CLICOLOR") == "0" else None


def moves(*, err: bool = True) -> bool:
    """Whether the cursor of this stream can be moved: a bar may be drawn over itself."""
    return _isatty(err) and not _dumb()


def edge(*, err: bool = False) -> int | None:
    """The columns of the terminal that a stream goes to; None for a pipe or a file, which has no edge."""
    if not _isatty(err):
        return None
    try:
        seen = os.get_terminal_size((sys.stderr if err else sys.stdout).fileno()).columns
    except OSError:
        seen = 0
    asked = os.environ.get("COLUMNS", "")
    return int(asked) if asked.isdecimal() and int(asked) else seen or 80


def _isatty(err: bool) -> bool:
    return (sys.stderr if err else sys.stdout).isatty()


def _dumb() -> bool:
    return os.environ.get("TERM", "").lower() in DUMB


def wrap(text: str, width: int | None, *, hang: int = 2) -> str:
    """Break lines between words, and indent what follows by `hang` more than the line.

    A command (in backticks, after a colon to the end of the line, or an indented line of its own) is never broken, so
    that it can be copied; neither is a word longer than a line, nor a line of a graph.
    """
    if width is None:
        return text
    return "\n".join(_wrap(line, width, hang) for line in text.split("\n"))


def _wrap(line: str, width: int, hang: int) -> str:
    if cells(line) <= width or line.lstrip().startswith(_GRAPH) or _COMMAND.match(line):
        return line
    indent = min(len(line) - len(line.lstrip()) + hang, width // 2)
    rows, row = [], ""
    for gap, word in _WORD.findall(line):
        whole = word.startswith("pv ") or "`" in word
        fits = cells(row + gap + word) <= width
        if gap and row.strip() and not fits and (whole or cells(word) <= width - indent):
            rows.append(row)
            row = " " * indent + word
        else:
            row += gap + word
    return "\n".join([*rows, row])


def cells(text: str) -> int:
    """The columns that a text takes: two for a wide character, none for a colour or a combining mark."""
    text = _ESCAPE.sub("", text)
    if text.isascii():
        return len(text)
    return sum(_cells(ch) for ch in text)


def _cells(ch: str) -> int:
    if unicodedata.category(ch) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(ch) in "WF" else 1


def cut(line: str) -> str:
    """A line that fits on the terminal, with `…` where it was cut; whole where there is no edge."""
    left = edge()
    if left is None or cells(line) <= left:
        return line
    kept = []
    for at, piece in enumerate(_ESCAPE.split(line)):
        if at % 2:
            kept.append(piece)
            continue
        for ch in piece:
            left -= _cells(ch)
            if left < 1:  # the last column is for the mark
                return "".join([*kept, "…", *(["\x1b[0m"] if at else [])])
            kept.append(ch)
    return "".join(kept)
