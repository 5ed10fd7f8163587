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

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import IntegrityError
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step, nothing
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.exponential import exp
from pv.vecstore.tensors.reduce import row_sums
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["COUNT", "LINEAR", "NAME", "ROWS", "check_weight", "ready"]

NAME = "arcee_fusion"
LINEAR = False
COUNT = (1, 1)
ROWS = True

F64 = NDArray[np.float64]
_SIGN = np.uint32(0x80000000)


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor, which is looked at twice before."""
    (voice,) = voices
    if not tensor.size:
        return nothing

    def importance(piece: Piece) -> F32:
        return _importance(piece.base, piece.scaled(voice), tensor)

    wanted = [quarter * (tensor.size - 1) // 4 for quarter in (1, 2, 3)]
    lower, median, upper = _in_order(lambda: map(importance, tensor.pieces(rows=True)), wanted)
    threshold = np.float32(median + 1.5 * (upper - lower))

    def step(piece: Piece) -> F32:
        delta = piece.scaled(voice)
        np.copyto(delta, np.float32(0), where=_importance(piece.base, delta, tensor) < threshold)
        return delta

    return step


def _importance(base: F32, delta: F32, tensor: Tensor) -> F32:
    """Of whole rows: (n,) fp32 each → (n,)"""
    b, d = (x.astype(np.float64).reshape(-1, tensor.width) for x in (base, delta))
    with np.errstate(all="ignore"):
        out: F32 = np.multiply(np.abs(d), _divergence(b, d)[:, None]).reshape(-1).astype(np.float32)
    if not np.isfinite(out).all():
        raise IntegrityError(
            f"tensor {tensor.name!r} holds infinite or undefined numbers, which cannot be ranked",
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


def _in_order(pieces: Callable[[], Iterable[F32]], places: Sequence[int]) -> list[float]:
    """The numbers at these places in order of size: by the upper halves of their bits, and then by the lower."""
    upper = np.zeros(1 << 16, np.int64)
    for piece in pieces():
        upper += np.bincount(_ordered(piece) >> np.uint32(16), minlength=1 << 16)
    below = np.cumsum(upper)
    halves = [int(np.searchsorted(below, place, side="right")) for place in places]
    lower = {half: np.zeros(1 << 16, np.int64) for half in halves}
    for piece in pieces():
        bits = _ordered(piece)
        for half, counts in lower.items():
            counts += np.bincount(bits[bits >> np.uint32(16) == half] & np.uint32(0xFFFF), minlength=1 << 16)
    found = []
    for place, half in zip(places, halves, strict=True):
        within = place - int(below[half] - upper[half])
        found.append(half << 16 | int(np.searchsorted(np.cumsum(lower[half]), within, side="right")))
    return [float(x) for x in _numbers(np.array(found, np.uint32))]


def _ordered(x: F32) -> NDArray[np.uint32]:
    """Bits whose order as integers is that of the numbers."""
    bits = x.view(np.uint32)
    found: NDArray[np.uint32] = np.where(bits >> np.uint32(31), ~bits, bits | _SIGN)
    return found


def _numbers(ordered: NDArray[np.uint32]) -> F32:
    """The inverse of `_ordered`."""
    return np.where(ordered >> np.uint32(31), ordered ^ _SIGN, ~ordered).view(np.float32)
