"""`consensus`: add the deltas, and drop the elements that too few of them have a use for.

Wang et al., "Localizing Task Information for Improved Model Merging and Compression" (TALL masks), ICML 2024. With
dᵢ = wᵢ·δᵢ and their sum D, an element is of use to behaviour i where |dᵢ| ≥ ratio · |D - dᵢ|. D is kept where at least
`users` behaviours have a use for it (all, where there are fewer than that), and multiplied by `lambda`.

`ratio` is the paper's λ of the mask, which it chooses for each task among 0.2 ... 0.6 on data. No mergekit method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors.arithmetic import BLOCK, common_size, scaled_sum, single
from pv.vecstore.tensors.array import F32

__all__ = ["COUNT", "GIVEN_ALL", "LINEAR", "NAME", "check_weight", "combine"]

NAME = "consensus"
LINEAR = False
GIVEN_ALL = True
COUNT = (2, None)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    there = present(shares)
    if not there:
        return np.zeros(common_size([share.delta for share in shares]), np.float32)
    total = scaled_sum([(share.weight, share.delta) for share in there])
    ratio, scale = single(options["ratio"], "ratio"), single(options["lambda"], "lambda")
    least = min(int(options["users"]), len(there))
    with np.errstate(all="ignore"):
        for low in range(0, total.size, BLOCK):
            part = total[low : low + BLOCK]
            users = np.zeros(part.size, np.int64)
            for share in there:
                own = np.multiply(share.delta[low : low + BLOCK], np.float32(share.weight))
                rest = np.abs(np.subtract(part, own))
                users += np.abs(own) >= np.multiply(rest, ratio)
            np.copyto(part, np.float32(0), where=users < least)
            if scale != 1:
                np.multiply(part, scale, out=part)
    return total
