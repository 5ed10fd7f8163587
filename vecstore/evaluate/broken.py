"""Broken replies: empty, or in a loop. A reply that is only longer than the limit is not broken."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pv.vecstore.evaluate.loops import loops
from pv.vecstore.evaluate.statistics import Interval, share
from pv.vecstore.models.generate import Reply

__all__ = ["broken", "broken_share", "surely_above"]


def broken(reply: Reply) -> bool:
    """Whether nothing was said, or the same again and again."""
    return not reply.text.strip() or loops(reply)


def broken_share(replies: Sequence[Reply]) -> Interval | None:
    """The share of broken replies, with Wilson's interval; None of no replies."""
    return share(sum(map(broken, replies)), len(replies)) if replies else None


def surely_above(one: Interval | None, other: Interval | None) -> bool:
    """Whether the interval of the difference of two shares lies above 0 as a whole.

    Newcombe's interval out of the two Wilson intervals (Statistics in Medicine 17, 1998, method 10). False for None.
    """
    if one is None or other is None:
        return False
    below = math.hypot(one.mean - one.low, other.high - other.mean)
    return one.mean - other.mean - below > 0
