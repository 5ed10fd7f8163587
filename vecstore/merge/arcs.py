"""What slerp's family has in common: factors for behaviours' deltas, or for their models with the base taken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

import numpy as np

from pv.vecstore.merge import sphere
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import exactly, present
from pv.vecstore.tensors.arithmetic import common_size, scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["along_arcs"]

Factors = Callable[[sphere.Span, Sequence[Decimal]], sphere.Vector]


def along_arcs(of: str, shares: Sequence[Share], place: Place, factors: Factors) -> F32:
    """The sum of the vectors, each times its factor. One behaviour by itself is its delta, bit for bit.

    Models are never formed: Σ cᵢ·(base + δᵢ) - base is (Σ cᵢ - 1)·base + Σ cᵢ·δᵢ.
    """
    there = present(shares)
    if not there:
        return np.zeros(common_size([share.delta for share in shares]), np.float32)
    if len(there) == 1:
        return scaled_sum([(1.0, there[0].delta)])
    deltas = [share.delta for share in there]
    weights = [exactly(share) for share in there]
    with localcontext(EXACT):
        if of == "deltas":
            found = factors(sphere.inner_products(deltas, place), weights)
            return scaled_sum(list(zip(map(float, found), deltas, strict=True)))
        base = place.base()
        found = factors(sphere.models(sphere.inner_products([base, *deltas], place)), weights)
        beyond = float(sum(found, Decimal(-1)))
    return scaled_sum([(beyond, base), *zip(map(float, found), deltas, strict=True)])
