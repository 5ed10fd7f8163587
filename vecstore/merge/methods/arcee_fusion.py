"""`arcee_fusion`: take over only the elements of a behaviour that matter most, and leave the base elsewhere.

Arcee AI's fusion. θ = base + w·δ; with the softmax p of a row of θ (along the last dimension) and q of the same row of
the base:

    importance   I = |w·δ| · KL(p ‖ q),   KL = Σ p·(ln p - ln q) over the row
    kept         where I ≥ median + 1.5·(upper quartile - lower quartile) of I over the tensor

Each quantile is an element: the one at ⌊q·(n - 1)⌋ in order of size. mergekit's `arcee_fusion` is this up to a million
elements, and draws a sample of more from a global generator: there it gives other weights each time.

KL is worked out in fp64 as Σ p·(w·δ) - (ln Σ eᶿ - ln Σ eᵇ), with the exponential of `tensors/exponential` and the sums
of `tensors/reduce`; I is rounded to fp32 once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import IntegrityError
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors.arithmetic import common_size, scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.exponential import exp
from pv.vecstore.tensors.reduce import row_sums
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["COUNT", "LINEAR", "NAME", "check_weight", "combine"]

NAME = "arcee_fusion"
LINEAR = False
COUNT = (1, 1)

F64 = NDArray[np.float64]
_AT_ONCE = 1 << 18  # elements in fp64 at a time: no result depends on it


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """One behaviour's share of one tensor: (n,) fp32 → (n,) fp32."""
    size = common_size([share.delta for share in shares])
    there = present(shares)
    if not there or not size:
        return np.zeros(size, np.float32)
    delta = scaled_sum([(there[0].weight, there[0].delta)])
    importance = _importance(place.base(), delta, place)
    ordered = np.sort(importance)
    threshold = np.float32(_quantile(ordered, 2) + 1.5 * (_quantile(ordered, 3) - _quantile(ordered, 1)))
    np.copyto(delta, np.float32(0), where=importance < threshold)
    return delta


def _importance(base: F32, delta: F32, place: Place) -> F32:
    width = place.shape[-1] if place.shape else 1
    out = np.empty(delta.size, np.float32)
    rows = max(1, _AT_ONCE // width)
    for low in range(0, delta.size, rows * width):
        part = slice(low, low + rows * width)
        b, d = (x[part].astype(np.float64).reshape(-1, width) for x in (base, delta))
        out[part] = np.multiply(np.abs(d), _divergence(b, d)[:, None]).reshape(-1)
    if not np.isfinite(out).all():
        raise IntegrityError(
            f"tensor {place.name!r} holds infinite or undefined numbers, which cannot be ranked",
            hint="combine with add, which leaves them where they are: `pv combine add`",
        )
    return out


def _divergence(b: F64, d: F64) -> F64:
    """KL(softmax(b + d) ‖ softmax(b)) of each row: (r, n) fp64 each → (r,)"""
    with np.errstate(all="ignore"):
        theta = np.add(b, d)
        tops = [x.max(axis=1) for x in (theta, b)]
        raised = [exp(np.subtract(x, top[:, None])) for x, top in zip((theta, b), tops, strict=True)]
        sums = [row_sums(x) for x in raised]
        moved = np.divide(row_sums(np.multiply(raised[0], d)), sums[0])
        found: F64 = np.subtract(moved, np.add(np.subtract(tops[0], tops[1]), _log_ratio(sums[0], sums[1])))
        return found


def _log_ratio(a: F64, b: F64) -> F64:
    """ln a - ln b, each rounded once."""
    logs = [[float(Decimal(x).ln(EXACT)) if np.isfinite(x) else np.nan for x in y.tolist()] for y in (a, b)]
    ratio: F64 = np.subtract(np.array(logs[0]), np.array(logs[1]))
    return ratio


def _quantile(ordered: F32, quarter: int) -> float:
    """The element that is quarter/4 of the way, or the one before."""
    return float(ordered[quarter * (ordered.size - 1) // 4])
