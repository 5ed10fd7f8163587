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

import numpy as np

from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import exactly, no_negative, present
from pv.vecstore.tensors.arithmetic import common_size, scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["GIVEN_ALL", "LINEAR", "NAME", "check_weight", "combine"]

NAME = "linear"
LINEAR = False  # the average is over behaviours, however many vectors each has
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    no_negative(
        weight, what, "linear divides by the sum of the weights, so alone it would act as a positive one"
    )


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    there = present(shares)
    if not there:
        return np.zeros(common_size([share.delta for share in shares]), np.float32)
    with localcontext(EXACT):
        total = sum(map(exactly, there), Decimal(0))
        return scaled_sum([(float(exactly(share) / total), share.delta) for share in there])
