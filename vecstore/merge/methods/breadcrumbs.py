"""`breadcrumbs`: drop a delta's largest elements as outliers, and its small ones as noise.

Davari and Belilovsky, "Model Breadcrumbs", ECCV 2024. In each tensor of n elements, in order of magnitude and of equal
ones by index, the ⌊γn⌋ largest are dropped and the k = ⌊ρn⌋ after them are kept; where there are fewer than k after
them, only the n - k largest are dropped. So at density 1 nothing is.

Then as `elect`, `merge` and `lambda` say (`sparse`): elect=none with merge=sum is mergekit's `breadcrumbs`,
elect=weighted with merge=sum its `breadcrumbs_ties`, both with its default of no rescaling
(the preset: its default switches).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.selection import largest
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors.arithmetic import BLOCK
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "combine"]

NAME = "breadcrumbs"
LINEAR = False


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    sparse.check_signs(NAME, options, weight, what)


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    there = present(shares)
    if not there:
        return np.zeros(shares[0].delta.size, np.float32)
    return sparse.merge(options, [_thinned(options, share) for share in there], place)


def _thinned(options: Mapping[str, Any], share: Share) -> Share:
    check_weight(options, share.weight, "a behaviour's weight")
    delta = share.delta
    wanted = int(float(options["density"]) * delta.size)
    outliers = min(int(float(options["gamma"]) * delta.size), delta.size - wanted)
    dropped, within = largest(delta, outliers), largest(delta, outliers + wanted)
    out = np.zeros(delta.size, np.float32)
    for low in range(0, delta.size, BLOCK):
        part = delta[low : low + BLOCK]
        keep = within.keeps(delta, low, part.size) & ~dropped.keeps(delta, low, part.size)
        np.copyto(out[low : low + BLOCK], part, where=keep)
    return replace(share, delta=out)
