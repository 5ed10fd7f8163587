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

__all__ = ["BLOCK", "dot", "row_sums"]

BLOCK = 4096
"""Part of the definition: another number is another result."""

_AT_ONCE = 32 * BLOCK  # elements worked on at a time: no result depends on it
F64 = NDArray[np.float64]


def dot(a: F32, b: F32) -> float:
    """Σ aᵢ·bᵢ of (n,) fp32 each; NaN if anything in them is infinite or undefined."""
    float_environment.check()
    sums: list[float] = []
    with np.errstate(all="ignore"):
        for low in range(0, a.size, _AT_ONCE):
            products = np.multiply(a[low : low + _AT_ONCE], b[low : low + _AT_ONCE], dtype=np.float64)
            sums += _block_sums(products[None])[0].tolist()
    return math.fsum(sums) if all(map(math.isfinite, sums)) else math.nan


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
