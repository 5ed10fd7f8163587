"""What slerp's family has in common: factors for behaviours' deltas, or for their models with the base taken off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext

from pv.vecstore.merge import sphere
from pv.vecstore.merge.share import Tensor, Voice
from pv.vecstore.merge.steps import Sum
from pv.vecstore.merge.weights import exactly
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["along_arcs"]

Factors = Callable[[sphere.Span, Sequence[Decimal]], sphere.Vector]


def along_arcs(of: str, voices: Sequence[Voice], tensor: Tensor, factors: Factors) -> Sum:
    """The sum of the vectors, each times its factor. One behaviour by itself is its delta, bit for bit.

    Models are never formed: Σ cᵢ·(base + δᵢ) - base is (Σ cᵢ - 1)·base + Σ cᵢ·δᵢ.
    """
    if len(voices) == 1:
        return Sum(voices, (1.0,))
    weights = [exactly(voice) for voice in voices]
    with localcontext(EXACT):
        if of == "deltas":
            found = factors(sphere.inner_products(tensor, voices), weights)
            return Sum(voices, tuple(map(float, found)))
        found = factors(sphere.models(sphere.inner_products(tensor, voices, with_base=True)), weights)
        return Sum(voices, tuple(map(float, found)), float(sum(found, Decimal(-1))))
