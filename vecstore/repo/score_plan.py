"""What a score measures beside the effect."""

from __future__ import annotations

from dataclasses import dataclass, field

from pv.vecstore.data.row import Message
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set

__all__ = ["REPLIES", "TOKENS", "ScorePlan"]

REPLIES = 24
TOKENS = 64


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """`neutral` None: no damage is measured; `replies` 0: none are written.

    Replies are greedy, to the first `replies` prompts of the rows, and end after `max_tokens` at the latest. `judge`:
    the command that a file of rows names to judge them may be run.
    """

    neutral: Rows | None = field(default_factory=neutral_set)
    replies: int = REPLIES
    max_tokens: int = TOKENS
    judge: bool = False

    def prompts(self, rows: Rows) -> tuple[tuple[Message, ...], ...]:
        """The first prompts of the rows, each once."""
        return tuple(dict.fromkeys(row.prompt for row in rows if row.prompt))[: self.replies]
