"""Strangers' text, made safe for YAML and Markdown.

In front matter each text is a quoted scalar on one line; in the body each is a code span on one line. None can
open a heading, a table cell, a link or a tag of HTML.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

__all__ = ["code", "one_line", "plain", "table", "tag", "yaml_string"]

MAX_CHARS = 160


def yaml_string(text: str) -> str:
    """A double-quoted YAML scalar on one line that reads back as `text` (a lone surrogate as U+FFFD)."""
    return '"' + "".join(map(_yaml_char, text)) + '"'


def _yaml_char(ch: str) -> str:
    code = ord(ch)
    if ch in '"\\':
        return "\\" + ch
    if 0xD800 <= code <= 0xDFFF:
        return "\ufffd"
    if ch.isprintable():  # neither control nor format characters, nor any space but the plain one
        return ch
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def tag(text: str) -> str:
    """A tag as the Hub spells them."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower())[:64].strip("-.")


def one_line(value: object) -> str:
    """One line of at most MAX_CHARS without control, format or unassigned characters, and without pipes:
    readers of Markdown tables do not agree on how one is escaped."""
    text = "".join(" " if ch.isspace() else ch for ch in str(value)).replace("|", "¦")
    text = "".join("\ufffd" if unicodedata.category(ch).startswith("C") else ch for ch in text)
    line = " ".join(text.split()) or " "
    return line if len(line) <= MAX_CHARS else line[: MAX_CHARS - 1] + "…"


def code(text: object) -> str:
    """A code span: Markdown and HTML inside it mean nothing."""
    line = one_line(text)
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    pad = " " if "`" in line else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def plain(text: object) -> str:
    """Text outside a code span, every ASCII punctuation mark that could mean something escaped."""
    return re.sub(r"([!-,:-@\[-`{-~])", r"\\\1", one_line(text))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; cells must be safe already."""
    lines = [tuple(head), ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
