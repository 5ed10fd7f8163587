"""Sums over a whole tensor that come out the same on every machine: for the merge methods that measure one.

A library's sum or dot product adds in an order that depends on the processor and the threads. Here the order is fixed:
products in fp64 (exact, of fp32 operands), in blocks of 4096 elements, the last filled up with zeros; a block is
halved, first half plus second half, until one number is left; and the blocks' sums are added by `math.fsum`, which
rounds their exact sum once.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.array import F32

__all__ = ["BLOCK", "Total", "dot", "row_sums"]

BLOCK = 4096
"""Part of the definition: another number is another result."""

_AT_ONCE = 1 << 12  # blocks' sums that are kept before they are put together: no result depends on it
F64 = NDArray[np.float64]


class Total:
    """Σ aᵢ·bᵢ of fp32 that come piece by piece: each piece but the last is a multiple of BLOCK elements.

    The pieces may come as fp32 or as fp64 of the same values.
    """

    def __init__(self) -> None:
        self._sums: list[float] = []
        self._finite = True

    def add(self, a: F32 | F64, b: F32 | F64) -> None:
        float_environment.check()
        with np.errstate(all="ignore"):
            sums = _block_sums(np.multiply(a, b, dtype=np.float64)[None])[0].tolist()
        self._finite = self._finite and all(map(math.isfinite, sums))
        self._sums += sums
        if self._finite and len(self._sums) > _AT_ONCE:
            self._sums = _exactly(self._sums)

    @property
    def value(self) -> float:
        """Rounded once; NaN if anything in them is infinite or undefined."""
        return math.fsum(self._sums) if self._finite else math.nan


def dot(a: F32, b: F32) -> float:
    """Σ aᵢ·bᵢ of (n,) fp32 each; NaN if anything in them is infinite or undefined."""
    total, step = Total(), 32 * BLOCK
    for low in range(0, a.size, step):
        total.add(a[low : low + step], b[low : low + step])
    return total.value


def _exactly(numbers: list[float]) -> list[float]:
    """A few numbers with the very same sum: what rounding left out of it, again and again, until that is nothing."""
    found: list[float] = []
    while rest := math.fsum([*numbers, *(-one for one in found)]):
        found.append(rest)
    return found


def row_sums(x: F64) -> F64:
    """Σ of each row, (r, n) fp64 → (r,): the blocks' sums are added one after another."""
    sums = _block_sums(x)
    total = np.zeros(len(x))
    for at in range(sums.shape[1]):
        np.add(total, sums[:, at], out=total)
    return total


def _block_sums(x: F64) -> F64:
    """(r, n) fp64 → (r, ⌈n / BLOCK⌉)"""
    rows, size = x.shape
    blocks = -(-size // BLOCK)
    if size % BLOCK:
        room = np.zeros((rows, blocks * BLOCK))
        room[:, :size] = x
        x = room
    width = BLOCK // 2
    x = x.reshape(rows, blocks, BLOCK)
    sums = np.add(x[..., :width], x[..., width:])
    while width > 1:
        width //= 2
        np.add(sums[..., :width], sums[..., width : 2 * width], out=sums[..., :width])
    return sums[..., 0]
