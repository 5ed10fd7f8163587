"""`nearswap`: go over to the behaviour's weights where they are near the base's, and no further than `limit` elsewhere.

The weight of the other model is min(1, limit / |difference|), element by element, so what is added to the base is w·δ
cut off at -limit and limit. It is in the units of the weights: the only size here that is not relative. mergekit's
`nearswap` with this base as `base_model`, and `limit` as its `t` (Alchemonaut's NearSwap).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors.arithmetic import common_size, scaled_sum, single
from pv.vecstore.tensors.array import F32

__all__ = ["COUNT", "LINEAR", "NAME", "check_weight", "combine"]

NAME = "nearswap"
LINEAR = False
COUNT = (1, 1)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """One behaviour's share of one tensor: (n,) fp32 → (n,) fp32."""
    there = present(shares)
    if not there:
        return np.zeros(common_size([share.delta for share in shares]), np.float32)
    delta = scaled_sum([(there[0].weight, there[0].delta)])
    most = single(options["limit"], "limit")
    return np.clip(delta, -most, most, out=delta)
