"""`slerp`: along the arc from the base to the model of one behaviour (Shoemake, SIGGRAPH 1985).

    sin((1-t)θ)/sin θ · base  +  sin(tθ)/sin θ · (base + w·δ)

θ is the angle between the two, each taken as one flat vector. Above |cos θ| = 0.9995 the arc is a straight line, as in
every tool: that is t·w·δ. The result is added to the base, so the factor of the base here is what is left of it beyond
1; both factors are worked out in 40 digits and rounded to fp32 once. With t = 1 it is w·δ itself.

t = 0 is the base, t = 1 the behaviour: mergekit's `slerp` with this base as `base_model`. Between the models of two
behaviours, and between deltas, `nuslerp` goes as far as their weights say, so that no order of names matters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from pv.vecstore.merge import sphere
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step, Sum
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["COUNT", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "slerp"
LINEAR = False
COUNT = (1, 1)

_STRAIGHT_FROM = Decimal("0.9995")


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor, which is looked at once."""
    (voice,) = voices
    (bb, bd), (_, dd) = sphere.inner_products(tensor, voices, with_base=True, of=Piece.scaled).gram
    with localcontext(EXACT):
        two = sphere.Span(((bb, bb + bd), (bb + bd, bb + 2 * bd + dd)))
        of_base, of_model = sphere.slerp(two, Decimal(options["t"]), straight_from=_STRAIGHT_FROM)
        beyond, factor = float(of_base + of_model - 1), float(of_model)
    if voice.weight == 1:
        return Sum(voices, [factor], beyond)
    return lambda piece: scaled_sum([(beyond, piece.base), (factor, piece.scaled(voice))])
