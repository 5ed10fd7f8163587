"""`linear`: Σ wᵢ·θᵢ / Σ wᵢ, the weighted average of the models ("model soups", Wortsman et al., ICML 2022).

Of models base + δᵢ that is base + Σ (wᵢ / Σ w)·δᵢ. A behaviour that leaves a tensor alone has the base's there, and
counts. Each factor is worked out in 40 digits and rounded to fp32 once: a behaviour by itself has exactly 1.

A negative weight is refused: alone it would act as a positive one, and next to others it may take the sum to 0.
mergekit's `linear` with `normalize: true` is this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from pv.vecstore.merge.share import Tensor, Voice
from pv.vecstore.merge.steps import Sum
from pv.vecstore.merge.weights import exactly, no_negative
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "linear"
LINEAR = False  # the average is over behaviours, however many vectors each has
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    no_negative(
        weight, what, "linear divides by the sum of the weights, so alone it would act as a positive one"
    )


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor."""
    with localcontext(EXACT):
        total = sum(map(exactly, voices), Decimal(0))
        return Sum(voices, [float(exactly(voice) / total) for voice in voices])
