"""What a trim keeps of a delta: all magnitudes above one, and of those that equal it the first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.tensors.array import F32

__all__ = ["ANY_NAN", "EVER", "Cut", "magnitude"]

ANY_NAN = 0x7F800001
"""As which every NaN counts: no magnitude is above it."""
EVER = 1 << 62
"""Behind every index."""
_ABS = np.uint32(0x7FFFFFFF)


@dataclass(frozen=True, slots=True)
class Cut:
    """Kept is a magnitude whose bits are above `threshold`, or equal to it at an index below `ties_until`."""

    threshold: int
    ties_until: int

    def keeps(self, values: F32, start: int) -> NDArray[np.bool_]:
        """Of elements from index `start` on: (n,) bool."""
        bits = magnitude(values)
        keep: NDArray[np.bool_] = bits > self.threshold
        last = min(max(self.ties_until - start, 0), bits.size)
        if last:
            keep[:last] |= bits[:last] == self.threshold
        return keep


def magnitude(values: F32) -> NDArray[np.uint32]:
    """Bits of |value|, whose integer order is the order of the values; every NaN counts as the largest."""
    bits: NDArray[np.uint32] = values.view(np.uint32) & _ABS
    np.minimum(bits, np.uint32(ANY_NAN), out=bits)
    return bits
