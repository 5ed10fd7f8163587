"""`dare`: drop elements of each delta by lot, and divide what is kept by the share that is kept.

Yu et al., "Language Models are Super Mario" (DARE), ICML 2024: with density ρ an element is kept with probability ρ and
becomes δ/ρ, so that its mean is δ. Kept is an element whose 32 random bits, as a number, are below ⌊ρ·2³²⌋. They belong
to (`seed`, the vector, the tensor's name, the element's index), see `sparse`: no order, thread or name of a
behaviour has a part in them. A vector that is negated is thinned at the same places.

Then as `elect`, `merge` and `lambda` say (`sparse`): elect=none with merge=sum is mergekit's `dare_linear`,
elect=weighted with merge=sum its `dare_ties`, but for two things: mergekit draws from a global generator, and does not
divide by ρ, but scales a tensor until its L1 norm is what it was. PEFT divides by ρ too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "combine"]

NAME = "dare"
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
    density = float(options["density"])
    if density == 1:
        return share
    below, kept = np.uint32(int(density * 2.0**32)), single(density, "density")
    out = np.zeros(share.delta.size, np.float32)
    with np.errstate(all="ignore"):
        for part, bits in sparse.drawn(NAME, int(options["seed"]), share, place):
            np.divide(share.delta[part], kept, out=out[part], where=bits < below)
    return replace(share, delta=out)
