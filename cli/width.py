"""How wide text is on a terminal, and lines that end at its edge."""

from __future__ import annotations

import re
import shutil
import sys
import unicodedata

__all__ = ["cut"]

_COLOUR = re.compile(r"(\x1b\[[0-9;]*m)")


def cut(line: str) -> str:
    """A line that fits on the terminal, with `…` where it was cut; whole if nobody is looking: a pipe has no edge."""
    if not sys.stdout.isatty():
        return line
    left, kept = shutil.get_terminal_size().columns, []
    if _width(_COLOUR.sub("", line)) <= left:
        return line
    for piece in _COLOUR.split(line):
        if _COLOUR.fullmatch(piece):
            kept.append(piece)
            continue
        for ch in piece:
            left -= _width(ch)
            if left < 1:  # the last column is for the mark
                return (
                    f"{''.join(kept)}…\x1b[0m" if any(map(_COLOUR.fullmatch, kept)) else f"{''.join(kept)}…"
                )
            kept.append(ch)
    return "".join(kept)


def _width(text: str) -> int:
    """Columns: two for a wide character, none for one that is put on the one before."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(ch) else 1 + (unicodedata.east_asian_width(ch) in "WF") for ch in text
    )
