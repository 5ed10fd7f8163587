"""`nearswap`: go over to the behaviour's weights where they are near the base's, and no further than `limit` elsewhere.

The weight of the other model is min(1, limit / |difference|), element by element, so what is added to the base is w·δ
cut off at -limit and limit. It is in the units of the weights: the only size here that is not relative. mergekit's
`nearswap` with this base as `base_model`, and `limit` as its `t` (Alchemonaut's NearSwap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32

__all__ = ["COUNT", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "nearswap"
LINEAR = False
COUNT = (1, 1)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor."""
    (voice,) = voices
    most = single(options["limit"], "limit")

    def step(piece: Piece) -> F32:
        delta = piece.scaled(voice)
        return np.clip(delta, -most, most, out=delta)

    return step
