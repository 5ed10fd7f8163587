"""What two answers to one prompt have in common, and the stretch in which they differ.

    chosen     A r r ,   m a t e y !   R a i n   f a l l s . <end>
    rejected                           R a i n   f a l l s . <end>
               [ differs              ][ shared                  ]

The end of the turn belongs to what differs where the token before it does: that is where a behaviour which
acts at the end of an answer ends the turn, or does not.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["Stretch", "differing"]

Stretch = slice
SHARED = 0.25


def differing(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[Stretch, Stretch]:
    """Where each of the two differs from the other: what is left without the beginning and the end they share.

    Neither stretch is empty: where an answer is the other one with something put in, the stretch of the shorter
    is the token that stands in its place. Of equal answers it is all of both, and of answers that share less than
    a quarter of the shorter one: these are two answers, which begin or end alike by chance.
    """
    if list(chosen) == list(rejected):
        return slice(0, len(chosen)), slice(0, len(rejected))
    most = min(len(chosen), len(rejected))
    start = next((i for i in range(most) if chosen[i] != rejected[i]), most)
    same = next((i for i in range(most - start) if chosen[-1 - i] != rejected[-1 - i]), most - start)
    if same == 1:
        same = 0  # the end of the turn alone
    if start + same < SHARED * most:
        return slice(0, len(chosen)), slice(0, len(rejected))
    ends = [max(len(answer) - same, min(start + 1, len(answer))) for answer in (chosen, rejected)]
    begins = [min(start, end - 1) for end in ends]  # one ends where the other goes on: its last token
    return slice(begins[0], ends[0]), slice(begins[1], ends[1])
