"""`multislerp`: slerp for any number of behaviours, by one step on the sphere.

With unit vectors uᵢ = vᵢ/|vᵢ| and weights w̃ᵢ = wᵢ/Σw:

    m = Σ w̃ᵢuᵢ / |Σ w̃ᵢuᵢ|                          the straight mean, put back on the sphere
    s = Σ w̃ᵢ · θᵢ/sin θᵢ · (uᵢ - cos θᵢ · m)        the mean way from m to the uᵢ, θᵢ the angle between them
    result = Σ w̃ᵢ|vᵢ| · (cos|s| · m + sin|s| · s/|s|)

The exponential map of the mean of the logarithms (Buss and Fillmore, "Spherical averages", ACM TOG 2001, one step).
`step` none leaves it at m. `of` deltas or models, as in `nuslerp`. Zeros have no direction and count in the length
alone; directions that cancel are an error. A behaviour by itself is itself.

The preset `mergekit` has `step` none: what mergekit's `multislerp` (0.1.5, normalised weights) gives is m, because the
projections that it takes for the ways to the uᵢ have the mean 0.
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

__all__ = ["GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "multislerp"
LINEAR = False
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    no_negative(weight, what, "in multislerp the weights are shares of a mean")


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor, which is looked at once."""
    step = options["step"] == "log"

    def factors(span: sphere.Span, weights: Sequence[Decimal]) -> sphere.Vector:
        return sphere.multislerp(span, weights, tensor.name, step=step)

    return along_arcs(options["of"], voices, tensor, factors)
