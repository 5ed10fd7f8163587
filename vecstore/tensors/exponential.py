"""exp of many numbers in fp64, the same on every machine: separate IEEE operations, and no math library.

x = k·ln 2 + r with |r| ≤ ln 2 / 2; eʳ is a polynomial, evaluated by Horner's rule; 2ᵏ only moves the exponent. Within a
few units of the last place of what is exact.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["exp"]

F64 = NDArray[np.float64]

_LOG2_E = float.fromhex("0x1.71547652b82fep+0")
_LN2_HIGH = float.fromhex("0x1.62e42fee00000p-1")  # short enough that k times it is exact
_LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
_FACTORS = tuple(1 / math.factorial(n) for n in range(14))


def exp(x: F64) -> F64:
    """Of numbers up to 0, as a softmax has them; below -745 it is 0."""
    with np.errstate(all="ignore"):
        within = np.maximum(x, -800.0)
        k = np.rint(np.multiply(within, _LOG2_E))
        r = np.subtract(np.subtract(within, np.multiply(k, _LN2_HIGH)), np.multiply(k, _LN2_LOW))
        total = np.full_like(r, _FACTORS[-1])
        for factor in reversed(_FACTORS[:-1]):
            np.multiply(total, r, out=total)
            np.add(total, factor, out=total)
        return np.ldexp(total, k.astype(np.int32))
