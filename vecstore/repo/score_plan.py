"""What a score measures beside the effect."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from pv.registry.persona import Persona
from pv.vecstore.data.questions import Questions
from pv.vecstore.data.row import Message
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set

__all__ = ["REPLIES", "TOKENS", "ScorePlan", "Subject"]

REPLIES = 24
TOKENS = 64


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """`neutral` None: no damage is measured; `replies` 0: none are written; `questions` None: no tasks are measured.

    Replies are greedy, to the first `replies` prompts of the rows, and end after `max_tokens` at the latest. `judge`:
    the command that a file of rows names to judge them may be run.
    """

    neutral: Rows | None = field(default_factory=neutral_set)
    replies: int = REPLIES
    max_tokens: int = TOKENS
    judge: bool = False
    questions: Questions | None = None

    def prompts(self, rows: Rows) -> tuple[tuple[Message, ...], ...]:
        """The first prompts of the rows, each once."""
        return tuple(dict.fromkeys(row.prompt for row in rows if row.prompt))[: self.replies]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: a persona's build, in the words of the progress; or a control that is made from it.

    `system` is put before every prompt. `random`: not the persona's change of the base, but noise of the same norm in
    every tensor and direction; the number is the draw.
    """

    what: str
    persona: Persona
    system: str = ""
    random: int = 0

    def rows(self, rows: Rows) -> Rows:
        """As they are put to it."""
        if not self.system:
            return rows
        told = (replace(row, prompt=_told(row.prompt, self.system)) if row.prompt else row for row in rows)
        return replace(rows, rows=tuple(told))

    def questions(self, asked: Questions) -> Questions:
        if not self.system:
            return asked
        told = (replace(one, prompt=_told(one.prompt, self.system)) for one in asked)
        return replace(asked, questions=tuple(told))


def _told(prompt: tuple[Message, ...], system: str) -> tuple[Message, ...]:
    """With the system prompt, before what another one says already."""
    if prompt[0].role == "system":
        return (Message("system", f"{system}\n\n{prompt[0].content}"), *prompt[1:])
    return (Message("system", system), *prompt)
