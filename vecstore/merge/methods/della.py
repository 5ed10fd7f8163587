"""`della`: drop elements of each delta by lot, small ones rather than large ones, and divide each by its own chance.

Deep et al., "DELLA-Merging", 2024 (MAGPRUNE). In each row (along the last dimension) the elements are ranked by
magnitude, of equal ones the first as the larger: the one of rank r from the top, of n, is kept with probability

    p = ρ + ε - 2ε·r/(n - 1)        from ρ + ε for the largest to ρ - ε for the smallest; ρ in a row of one

and becomes δ/p, so that its mean is δ. p is rounded to fp32 once. Kept is an element whose 32 random bits, as a number,
are below ⌊p·2³²⌋; the bits belong to (`seed`, the vector, the tensor's name, the element's index), see `sparse`.
Density 1 keeps everything. Then as `elect`, `merge` and `lambda` say (`sparse`).

`density` ρ and `epsilon` ε are mergekit's (`della`, `della_linear`); the paper's ε is the whole window, so 2ε here.
mergekit does not divide by p, but scales a tensor until its L1 norm is what it was: that favours large elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.selection import magnitude
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "combine"]

NAME = "della"
LINEAR = False


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    sparse.check_signs(NAME, options, weight, what)


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    there = present(shares)
    if not there:
        return np.zeros(shares[0].delta.size, np.float32)
    float_environment.check()
    return sparse.merge(options, [_thinned(options, share, place) for share in there], place)


def _thinned(options: Mapping[str, Any], share: Share, place: Place) -> Share:
    check_weight(options, share.weight, "a behaviour's weight")
    density, epsilon = float(options["density"]), float(options["epsilon"])
    if density == 1 or not share.delta.size:
        return share
    chances = _chances(share.delta, place.shape[-1] if place.shape else 1, density, epsilon)
    out = np.zeros(share.delta.size, np.float32)
    with np.errstate(all="ignore"):
        for part, bits in sparse.drawn(NAME, int(options["seed"]), share, place):
            chance = chances[part]
            below = np.floor(np.multiply(chance, 2.0**32, dtype=np.float64))
            np.divide(share.delta[part], chance, out=out[part], where=bits < below)
    return replace(share, delta=out)


def _chances(delta: F32, width: int, density: float, epsilon: float) -> F32:
    """The probability with which each element is kept, (n,) fp32."""
    ranks = np.arange(width, dtype=np.float64)
    steps = 2 * epsilon * (ranks / (width - 1)) if width > 1 else np.full(1, epsilon)
    by_rank = (density + epsilon - steps).astype(np.float32)
    chances = np.empty(delta.size, np.float32).reshape(-1, width)
    for row, values in zip(chances, delta.reshape(-1, width), strict=True):
        row[np.argsort(~magnitude(values), kind="stable")] = by_rank
    return chances.reshape(-1)
