"""Text that comes in pieces, broken between words where the terminal's line ends."""

from __future__ import annotations

from collections.abc import Callable

from pv.cli.terminal import cells

__all__ = ["Wrap"]


class Wrap:
    """`piece` takes text as it comes, `end` what is left. A word is written once it is whole, and fits its line.

    Without a width nothing is broken, and every character is written as it comes. A word longer than a line is broken
    by the terminal; wide characters (Chinese, Japanese) are words of their own.
    """

    def __init__(self, write: Callable[[str], None], width: int | None) -> None:
        self._write, self._width = write, max(width or 0, 1)
        self._broken = width is not None
        self._column = 0
        self._space = self._word = ""

    def piece(self, text: str) -> None:
        if not self._broken:
            self._write(text)
            return
        for character in text:
            if character == "\n":
                self._flush()
                self._write("\n")
                self._column, self._space = 0, ""
            elif character.isspace():
                self._flush()
                self._space += character
            elif cells(character) > 1:
                self._flush()
                self._word = character
                self._flush()
            else:
                self._word += character

    def end(self) -> None:
        self._flush()

    def _flush(self) -> None:
        if not self._word:
            return
        gap, length = len(self._space.expandtabs()), cells(self._word)
        if self._column and self._column + gap + length > self._width:
            self._write("\n" + self._word)
            self._column = length
        else:
            self._write(self._space + self._word)
            self._column += gap + length
        self._column = (self._column - 1) % self._width + 1  # where the terminal broke it
        self._space = self._word = ""
