"""Loops: replies that say the same thing again and again.

A reply loops if a stretch of tokens, whatever its length, is in it three times in a row, 12 tokens or more in all; or
if it was cut at its limit in the middle of one that it had written twice, 24 tokens or more in all.
"""

from __future__ import annotations

from collections.abc import Sequence

from pv.vecstore.models.generate import Reply

__all__ = ["loops"]

TIMES, TOKENS = 3, 12
CUT_TIMES, CUT_TOKENS = 2, 24


def loops(reply: Reply) -> bool:
    """Whether a reply falls into a loop."""
    tokens = reply.tokens
    for period in range(1, len(tokens) // CUT_TIMES + 1):
        longest, last = _run(tokens, period)
        if longest >= max(TIMES * period, TOKENS):
            return True
        if reply.finish != "stop" and last >= max(CUT_TIMES * period, CUT_TOKENS):
            return True
    return False


def _run(tokens: Sequence[int], period: int) -> tuple[int, int]:
    """How many tokens the longest stretch has that repeats itself every `period`, and the one at the end."""
    longest = now = 0
    for at in range(period, len(tokens)):
        now = now + 1 if tokens[at] == tokens[at - period] else 0
        longest = max(longest, now)
    return longest + period if longest else 0, now + period if now else 0
