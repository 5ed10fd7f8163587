"""Weights as the merge methods take them: those that have no meaning are refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from pv.registry.errors import UsageError
from pv.vecstore.merge.share import Voice, Weighed
from pv.vecstore.tensors.arithmetic import single

__all__ = ["exactly", "no_negative", "voices"]


def no_negative(weight: float, what: str, why: str) -> None:
    """Raises UsageError for a weight below 0: `why` the method has no use for it."""
    if weight < 0:
        raise UsageError(
            f"{what} is {weight:g}: {why}",
            hint="use weights above 0, or combine with add: `pv combine add`",
        )


def voices(deltas: Sequence[Weighed]) -> list[Voice]:
    """Of the deltas, those with a weight, rounded to fp32 once: one that is then 0 is absent.

    Raises UsageError beyond fp32.
    """
    rounded = [float(single(one.weight, "a weight")) for one in deltas]
    return [
        Voice(weight, one.key, at, one.cut)
        for at, (weight, one) in enumerate(zip(rounded, deltas, strict=True))
        if weight != 0
    ]


def exactly(voice: Voice) -> Decimal:
    return Decimal(voice.weight)
