"""`nuslerp`: along the arc between two behaviours, as far as their weights say (Shoemake, SIGGRAPH 1985).

    sin((1-t)θ)/sin θ · v₁  +  sin(tθ)/sin θ · v₂,   t = w₂ / (w₁ + w₂)

θ is the angle between v₁ and v₂, each taken as one flat vector; parallel ones, opposite ones and zeros are mixed on
the straight line. With `of` deltas, v is a behaviour's delta; with `of` models it is base + delta, and the base is
taken off again: its factor is what the two have beyond 1. Factors are worked out in 40 digits and rounded to fp32
once. A behaviour whose partner has no weight on a tensor is itself there.

mergekit's `nuslerp` with a base is `of` deltas, without one `of` models. Weights are shares, so a negative one is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pv.vecstore.merge import sphere
from pv.vecstore.merge.arcs import along_arcs
from pv.vecstore.merge.share import Tensor, Voice
from pv.vecstore.merge.steps import Sum
from pv.vecstore.merge.weights import no_negative

__all__ = ["COUNT", "GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "nuslerp"
LINEAR = False
GIVEN_ALL = True
COUNT = (2, 2)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    no_negative(weight, what, "in nuslerp the weights are shares of the way between two behaviours")


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor, which is looked at once."""
    return along_arcs(options["of"], voices, tensor, _factors)


def _factors(span: sphere.Span, weights: Sequence[Decimal]) -> sphere.Vector:
    if span.count == 1:
        return (Decimal(1),)
    return sphere.slerp(span, weights[1] / (weights[0] + weights[1]))
