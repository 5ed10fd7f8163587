"""What was typed, typed otherwise: the command lines of hints, whole and quoted for a shell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

__all__ = ["at_front", "instead", "place", "swapped", "typed", "typed_with"]

_DIRECTORY = re.compile(r"-[qv]*C")  # -C, alone or behind flags: the next word is its value


def place(arguments: Sequence[str]) -> int:
    """Where the command's name is: behind the options that go before it."""
    index = 0
    while index < len(arguments) - 1 and arguments[index].startswith("-"):
        index += 2 if _DIRECTORY.fullmatch(arguments[index]) else 1
    return index


def typed(words: Sequence[str]) -> str:
    return shlex.join(["pv", *words])


def typed_with(arguments: Sequence[str], more: Sequence[str]) -> str:
    """The command line with more options: at its end, or before a `--`."""
    end = len(arguments)
    if "--" in arguments[place(arguments) :]:
        end = place(arguments) + 1
    return typed([*arguments[:end], *more, *arguments[end:]])


def at_front(arguments: Sequence[str], more: Sequence[str]) -> str:
    """The command line with more words right behind the command's name."""
    behind = place(arguments) + 1
    return typed([*arguments[:behind], *more, *arguments[behind:]])


def instead(arguments: Sequence[str], words: Sequence[str]) -> str:
    """Another command, run where the one that was typed would have been."""
    return typed([*arguments[: place(arguments)], *words])


def swapped(arguments: Sequence[str], first: str, second: str) -> str:
    """The command line with two of the command's words in each other's place."""
    words, begin = list(arguments), place(arguments) + 1
    at = words.index(first, begin)
    other = words.index(second, begin)
    words[at], words[other] = second, first
    return typed(words)
