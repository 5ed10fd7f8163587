"""The one way out for text: what a stranger's registry, file or model says never reaches the terminal as a command.

A terminal obeys control characters. Those in a message, a name or a reply are shown, not sent; of escape
sequences only colours pass, which pv itself writes. `plain` takes those away too, for text that is not ours.
"""

from __future__ import annotations

import re
import unicodedata

import click

from pv.cli.terminal import colour, edge, wrap

__all__ = ["echo", "plain", "shown"]

_COLOUR = re.compile(r"(\x1b\[(?:[012]|3[0-7])?m)")  # bold, faint, a colour, and none: not concealed
_OBEYED = {"Cc", "Cf", "Cs", "Zl", "Zp"}
_WRITTEN = "\n\t\u200c\u200d"  # Persian and emoji need the joiners


def plain(text: str) -> str:
    """Text with every control and format character but line feeds and tabs spelled out: `\\x1b`."""
    return text if text.isprintable() else "".join(repr(ch)[1:-1] if _is_obeyed(ch) else ch for ch in text)


def shown(text: str) -> str:
    """The same, but colours pass."""
    if text.isprintable():
        return text
    return "".join(piece if _COLOUR.fullmatch(piece) else plain(piece) for piece in _COLOUR.split(text))


def _is_obeyed(ch: str) -> bool:
    return ch not in _WRITTEN and unicodedata.category(ch) in _OBEYED


def echo(text: str = "", *, nl: bool = True, err: bool = False, hang: int = 2) -> None:
    """`click.echo` of what may be shown; whole lines are broken between words at the edge of a terminal."""
    said = shown(text)
    click.echo(wrap(said, edge(err=err), hang=hang) if nl else said, nl=nl, err=err, color=colour())
