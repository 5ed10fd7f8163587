"""The k largest of a tensor's elements by magnitude; of equal ones those that come first.

By integers: the bits of a magnitude are in the order of the values, so equal ones are cut alike everywhere, and every
NaN counts as the largest.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import PvError
from pv.vecstore.tensors.arithmetic import BLOCK
from pv.vecstore.tensors.array import F32

__all__ = ["Cut", "largest", "magnitude"]

_ABS = np.uint32(0x7FFFFFFF)
_ANY_NAN = np.uint32(0x7F800001)


@dataclass(frozen=True, slots=True)
class Cut:
    """Kept is a magnitude whose bits are above `threshold`, or equal to it at an index below `ties_until`."""

    threshold: int
    ties_until: int

    def keeps(self, values: F32, low: int, size: int) -> NDArray[np.bool_]:
        """Of `size` elements from `low` on: (size,) bool."""
        bits = magnitude(values[low : low + size])
        keep: NDArray[np.bool_] = bits > self.threshold
        last = min(max(self.ties_until - low, 0), bits.size)
        if last:
            keep[:last] |= bits[:last] == self.threshold
        return keep


def largest(values: F32, k: int) -> Cut:
    """The k largest magnitudes of (n,) fp32, of equal ones the first; all if k is n or more, none if it is 0."""
    size = values.size
    if k >= size:
        return Cut(-1, 0)  # every magnitude is above this
    if k <= 0:
        return Cut(int(_ANY_NAN), 0)  # and none above this
    bits = magnitude(values)
    bits.partition(size - k)
    threshold = int(bits[size - k])
    # All k - 1 places behind the threshold are at least as large, so only those can be above it.
    above = int(np.count_nonzero(bits[size - k :] > threshold))
    wanted = k - above  # at least 1
    for low in range(0, size, BLOCK):
        ties = np.flatnonzero(magnitude(values[low : low + BLOCK]) == threshold)
        if ties.size >= wanted:
            return Cut(threshold, low + int(ties[wanted - 1]) + 1)
        wanted -= ties.size
    raise PvError("a trim lost count of its ties")


def magnitude(values: F32) -> NDArray[np.uint32]:
    """Bits of |value|, whose integer order is the order of the values; every NaN counts as the largest."""
    bits: NDArray[np.uint32] = values.view(np.uint32) & _ABS
    np.minimum(bits, _ANY_NAN, out=bits)
    return bits
