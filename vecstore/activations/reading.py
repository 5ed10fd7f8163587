"""At which tokens activations are read, said in words and kept beside what was read.

    answer       the mean over the answer's tokens, without the one that ends it
    answer:-1    one of them, from the end; answer:0 is the first
    prompt       the mean over the prompt's tokens
    prompt:-1    one of them: the last is what predicts the answer's first token
    end          the token that ends the answer

A position at which every text has the same token can say little: most chat templates end an answer so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import Ids

__all__ = ["READS", "Read", "Text"]

READS = ("answer", "answer:N", "prompt", "prompt:N", "end")
_READ = re.compile(r"(answer|prompt)(?::(-?\d{1,6}))?|end")


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt's tokens and an answer's, with the token that ends it if there is one. `where` names it in messages."""

    prompt: Ids
    answer: Ids
    ended: bool
    where: str

    @property
    def tokens(self) -> Ids:
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class Read:
    part: str
    index: int | None = None

    @staticmethod
    def parse(text: str | Read) -> Read:
        """Raises UsageError."""
        if isinstance(text, Read):
            return text
        match = _READ.fullmatch(text)
        if match is None:
            raise UsageError(f"no read position {text[:40]!r}", hint=f"there are: {', '.join(READS)}")
        return Read(match[1] or "end", None if match[2] is None else int(match[2]))

    def __str__(self) -> str:
        return self.part if self.index is None else f"{self.part}:{self.index}"

    def columns(self, text: Text) -> range:
        """The columns of `text.tokens` that are read. Raises DataError where there are none."""
        length, start = len(text.tokens), len(text.prompt)
        if self.part == "end":
            found = range(length - 1, length) if text.ended else range(0)
        elif self.part == "prompt":
            found = range(start)
        else:
            found = range(start, length - text.ended)
        if self.index is None and len(found):
            return found
        if self.index is not None and -len(found) <= self.index < len(found):
            return found[self.index :][:1]
        raise DataError(
            f"{text.where}: there is no token at {str(self)!r}",
            hint="read elsewhere, for example: --read answer",
        )

    def check(self, texts: Sequence[Text]) -> None:
        """Raises UsageError if all texts have the same tokens where they are read."""
        seen = {tuple(text.tokens[i] for i in self.columns(text)) for text in texts}
        if len(seen) == 1 and len(texts) > 1:
            raise UsageError(
                f"every text has the same token at {str(self)!r}: what is read there is mostly the token itself",
                hint="read where texts differ: --read answer; --same-token reads here all the same",
            )
