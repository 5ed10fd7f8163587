"""Replies: what persona and base say when they are asked the same, greedily, and what became of the answer.

shown     the share of replies that show the behaviour, by the rule of the file of rows
loops     the share that fall into a loop
length    tokens of the persona's replies over those of the base's
content   what the base's own replies lost under the persona after their first 16 tokens, in nats a token: whether
          it would still say what the base says, once a behaviour has opened the answer
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.vecstore.data.reply_rule import ReplyRule
from pv.vecstore.data.row import Message
from pv.vecstore.evaluate.damage import Neutral
from pv.vecstore.evaluate.loops import loops
from pv.vecstore.evaluate.shown import shown
from pv.vecstore.evaluate.statistics import Interval, ratio, share
from pv.vecstore.models.generate import Reply

__all__ = ["ReplyScore", "score_replies"]

SHORT = 4
"""A reply with less than a quarter of the base's words is called short."""


@dataclass(frozen=True, slots=True)
class ReplyScore:
    """Of `n` prompts, at most `max_tokens` a reply. `shown` is None where no rule says what to look for."""

    n: int
    max_tokens: int
    rule: ReplyRule | None
    shown: Interval | None
    base_shown: Interval | None
    loops: Interval
    base_loops: Interval
    cut: int
    """Replies that were not at their end after `max_tokens`."""
    base_cut: int
    short: int
    length: Interval | None
    content: Interval | None

    def to_json(self) -> dict[str, Any]:
        def ends(one: Interval | None) -> dict[str, float] | None:
            return one.ends() if one else None

        return {
            "n": self.n,
            "max_tokens": self.max_tokens,
            "rule": self.rule.to_json() if self.rule else None,
            "shown": ends(self.shown),
            "base_shown": ends(self.base_shown),
            "loops": ends(self.loops),
            "base_loops": ends(self.base_loops),
            "cut": self.cut,
            "base_cut": self.base_cut,
            "short": self.short,
            "length": ends(self.length),
            "content": {**self.content.ends(), "n": self.content.n} if self.content else None,
        }


def score_replies(
    prompts: Sequence[Sequence[Message]],
    replies: Sequence[Reply],
    base: Sequence[Reply],
    *,
    max_tokens: int,
    rule: ReplyRule | None = None,
    forced: tuple[Neutral, Neutral] | None = None,
) -> ReplyScore:
    """`forced` is the base's own replies under persona and base (see `damage.forced`). Runs the rule's command."""
    texts, base_texts = [one.text for one in replies], [one.text for one in base]
    n = len(prompts)

    def showing(of: Sequence[str]) -> Interval | None:
        return share(sum(shown(rule, prompts, of, base_texts)), n) if rule else None

    lengths = [np.array([len(one.tokens) for one in which], np.float64) for which in (replies, base)]
    content = None
    if forced is not None and np.count_nonzero(forced[1].rest_tokens) > 1:
        content = ratio(forced[1].rest - forced[0].rest, forced[1].rest_tokens)
    return ReplyScore(
        n=n,
        max_tokens=max_tokens,
        rule=rule,
        shown=showing(texts),
        base_shown=showing(base_texts),
        loops=share(sum(map(loops, replies)), n),
        base_loops=share(sum(map(loops, base)), n),
        cut=sum(one.finish != "stop" for one in replies),
        base_cut=sum(one.finish != "stop" for one in base),
        short=sum(_short(one, other) for one, other in zip(texts, base_texts, strict=True)),
        length=ratio(*lengths) if np.count_nonzero(lengths[1]) > 1 else None,
        content=content,
    )


def _short(reply: str, base: str) -> bool:
    return len(reply.split()) * SHORT < len(base.split())
