"""`karcher`: the mean of the models on the sphere (Karcher, 1977; Buss and Fillmore, "Spherical averages", 2001).

The direction m at which the mean way to the models' directions, Σ w̃ᵢ · θᵢ/sin θᵢ · (uᵢ - cos θᵢ · m), is nothing. It is
walked to from the straight mean, in at most `max_iter` steps, until one is shorter than `tol` (an angle). The result
is as long as the models are on average, Σ w̃ᵢ|vᵢ|. `of` deltas or models, as in `nuslerp`; zeros have no direction and
count in the length alone; directions that cancel are an error. A behaviour by itself is itself.

mergekit's `karcher` is `of` models, and has no weights: all are alike.
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

NAME = "karcher"
LINEAR = False
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    no_negative(weight, what, "in karcher the weights are shares of a mean")


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor, which is looked at once."""
    steps, tolerance = int(options["max_iter"]), Decimal(options["tol"])

    def factors(span: sphere.Span, weights: Sequence[Decimal]) -> sphere.Vector:
        return sphere.karcher(span, weights, steps, tolerance, tensor.name)

    return along_arcs(options["of"], voices, tensor, factors)
