"""`model_stock`: the mean of the models, pulled back to the base as far as they disagree.

Jang, Yun and Han, "Model Stock", ECCV 2024. With dᵢ = wᵢ·δᵢ, N of them, and c the mean cosine of every two, each
tensor taken as one flat vector:

    r = N·c / (1 + (N - 1)·c),   the delta is r · Σ dᵢ / N

r is kept within 0 and 1: where the deltas point away from one another the base stays. A delta that is zero has the
cosine 0 with every other. r is worked out in 40 digits without a smallest length, and r·wᵢ/N is rounded to fp32 once.
On a tensor where one behaviour alone has a weight, it is itself.

mergekit's `model_stock` is this for lengths well above 1e-3 (it holds |dᵢ||dⱼ| against 1e-6, and does not hold r
within 0 and 1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

from pv.vecstore.merge import sphere
from pv.vecstore.merge.share import Tensor, Voice
from pv.vecstore.merge.steps import Sum
from pv.vecstore.merge.weights import exactly
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["COUNT", "GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "model_stock"
LINEAR = False
GIVEN_ALL = True
COUNT = (2, None)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor, which is looked at once."""
    count = Decimal(len(voices))
    with localcontext(EXACT):
        ratio = _ratio(voices, tensor) if len(voices) > 1 else Decimal(1)
        return Sum(voices, [float(ratio * exactly(voice) / count) for voice in voices])


def _ratio(voices: Sequence[Voice], tensor: Tensor) -> Decimal:
    span = sphere.inner_products(tensor, voices)
    count, total = len(voices), Decimal(0)
    for i in range(count):
        for j in range(i):
            lengths = span.length(i) * span.length(j)
            sign = 1 if voices[i].weight * voices[j].weight > 0 else -1
            total += sign * span.gram[i][j] / lengths if lengths else 0
    cosine = total / (count * (count - 1) // 2)
    if cosine <= 0:
        return Decimal(0)
    return min(count * cosine / (1 + (count - 1) * cosine), Decimal(1))
