"""What deltas of one tensor are like, and what they are to each other: sums over blocks, compiled where they can be.

Of the deltas in fp32, before rounding; short sums in fp32, and sums of those in fp64. These are observations, not
builds: their last digits may differ between machines, and between compiled loops and numpy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge import loops
from pv.vecstore.native import kernels
from pv.vecstore.native.kernels import Delta, Moved, Values
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import to_f32

__all__ = ["pairs", "step"]

BLOCK = 1 << 15  # elements looked at at a time: with a row for each behaviour, they stay in the cache
SHORT = 1 << 11  # elements whose products are summed in fp32
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


def step(own: Values, before: Sequence[Delta], after: Sequence[Delta]) -> Moved:
    """Σ after - Σ before, weights and all: how far it goes, and from how large a base."""
    if kernels.available():
        return kernels.step(own, before, after)
    moved = Moved()
    for part in _blocks(own.raw.size):
        base = to_f32(own.raw[part], own.dtype)
        old, new = (_sum(deltas, part, base) for deltas in (before, after))
        one = new - old
        moved.changed += int(np.count_nonzero(one))
        moved.step2 += _square(one)
        moved.base2 += _square(base)
        largest = float(np.abs(one).max(initial=0))
        if np.isnan(largest):
            moved.undefined = True
        else:
            moved.largest = max(moved.largest, largest)
    return moved


def pairs(own: Values, deltas: Sequence[Delta]) -> tuple[F64, I64, I64]:
    """Of every two of k deltas, without their weights, (k, k) each, above and on the diagonal: dot products, elements
    that both move, and how many of them to the same side."""
    if kernels.available():
        return kernels.pairs(own, deltas)
    k, size = len(deltas), own.raw.size
    dots, overlap, agree = np.zeros((k, k)), np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
    first, second = np.triu_indices(k)
    room = np.empty((k, min(BLOCK, size)), np.float32)
    for part in _blocks(size):
        base = to_f32(own.raw[part], own.dtype)
        rows = room[:, : len(base)]  # (k, block)
        for row, one in zip(rows, deltas, strict=True):
            row[:] = loops.tau(_cut(one, part), base)
        with np.errstate(all="ignore"):  # what is not finite gives what is not a number
            np.add(dots, _dots(rows), out=dots)
        up, down = _bits(rows > 0), _bits(rows < 0)  # (k, words)
        both = (up | down)[first] & (up | down)[second]  # (pairs, words)
        overlap[first, second] += _count(both)
        agree[first, second] += _count(both & ~(up[first] ^ up[second]))
    return dots, overlap, agree


def _sum(deltas: Sequence[Delta], part: slice, base: F32) -> F32:
    if not deltas:
        return np.zeros(len(base), np.float32)
    return scaled_sum([(one.weight, loops.tau(_cut(one, part), base)) for one in deltas])


def _cut(one: Delta, part: slice) -> Delta:
    return Delta(Values(one.values.raw[part], one.values.dtype), one.whole, one.weight)


def _square(x: F32) -> float:
    """The sum of squares, in fp64."""
    wide = x.astype(np.float64)
    return float(np.dot(wide, wide))


def _bits(rows: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """(k, n) to (k, n / 64), a bit an element, the last word filled up with zeros."""
    packed = np.packbits(rows, axis=1)
    words = np.zeros((len(rows), -(-packed.shape[1] // 8) * 8), np.uint8)
    words[:, : packed.shape[1]] = packed
    return words.view(np.uint64)


def _count(words: NDArray[np.uint64]) -> I64:
    """How many bits of each row are set, (pairs,)."""
    found: I64 = np.bitwise_count(words).sum(axis=1, dtype=np.int64)
    return found


def _dots(rows: F32) -> F64:
    """Dot products of every two rows: of a few thousand elements in fp32, and the sum of those in fp64."""
    whole = rows.shape[1] // SHORT * SHORT
    short = rows[:, :whole].reshape(len(rows), -1, SHORT).swapaxes(0, 1)  # (pieces, k, SHORT)
    rest = rows[:, whole:].astype(np.float64)
    products: F64 = (short @ short.swapaxes(1, 2)).sum(axis=0, dtype=np.float64) + rest @ rest.T
    return products


def _blocks(size: int) -> Iterator[slice]:
    for low in range(0, size, BLOCK):
        yield slice(low, low + BLOCK)
