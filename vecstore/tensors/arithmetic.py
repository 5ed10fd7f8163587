"""The float operations of a build, in any engine: sums of scaled deltas, and a delta onto the base.

They are separate IEEE single-precision operations (add, subtract, multiply, divide, compare) and integer operations,
in a fixed order. Nothing here fuses a multiply with an add, calls BLAS, sums with a library
reduction or evaluates a transcendental function, so the result depends neither on the number of threads, nor on
how the elements are cut into pieces, nor on the instruction set.

Invariant: every output element is a fixed expression of its operands' elements, evaluated in the order given
(callers give the order of vector ids), in single precision, one rounding for each operation written here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import PvError, UsageError
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.array import F32

__all__ = ["BLOCK", "apply", "common_size", "scaled_sum", "single"]

BLOCK = 1 << 15
"""Elements worked on at a time: they stay in the cache. No result depends on it."""

_ABS = np.uint32(0x7FFFFFFF)
_INF = np.uint32(0x7F800000)
_NAN = np.uint32(0x7FC00000)


def scaled_sum(terms: Sequence[tuple[float, F32]]) -> F32:
    """0 + c₁·τ₁ + c₂·τ₂ + ... in the order given: (coefficient, (n,) fp32) pairs → (n,) fp32.

    A coefficient is rounded to fp32 once; one that is then 0 is skipped, and 1 multiplies nothing. Raises
    UsageError for a coefficient beyond fp32.
    """
    size = common_size([tau for _, tau in terms])
    float_environment.check()
    scaled = [(c, tau) for c, tau in ((single(c, "a coefficient"), tau) for c, tau in terms) if c != 0]
    out = np.empty(size, np.float32)
    product = np.empty(min(BLOCK, size), np.float32)
    with np.errstate(all="ignore"):
        for low in range(0, size, BLOCK):
            total = out[low : low + BLOCK]
            total[:] = 0
            for c, tau in scaled:
                part = tau[low : low + BLOCK]
                np.add(total, part if c == 1 else np.multiply(part, c, out=product[: part.size]), out=total)
    return out


def apply(base: F32, delta: F32) -> F32:
    """base + delta, (n,) fp32 each → (n,) fp32: one addition.

    Where delta is zero the base's bits come back as they are (a plain addition would turn -0 into +0 and
    may touch a NaN). A NaN that arises is the one quiet NaN 7fc00000: processors differ in which they make.
    """
    size = common_size([base, delta])
    float_environment.check()
    out = np.empty(size, np.float32)
    scratch = np.empty(min(BLOCK, size), np.uint32)
    with np.errstate(all="ignore"):
        for low in range(0, size, BLOCK):
            block = out[low : low + BLOCK]
            np.add(base[low : low + BLOCK], delta[low : low + BLOCK], out=block)
            # magnitude - 1 wraps for zero, so zeros and NaNs are the elements at or above infinity's bits.
            odd = scratch[: block.size]
            np.bitwise_and(block.view(np.uint32), _ABS, out=odd)
            np.subtract(odd, np.uint32(1), out=odd)
            if int(odd.max()) >= _INF:
                _settle(block, base[low : low + BLOCK], delta[low : low + BLOCK], np.flatnonzero(odd >= _INF))
    return out


def _settle(out: F32, base: F32, delta: F32, at: NDArray[np.intp]) -> None:
    """Write the elements `at`, whose sum is zero or NaN, as `apply` promises."""
    bits = out.view(np.uint32)
    found = bits[at]
    found = np.where((found & _ABS) > _INF, _NAN, found)
    bits[at] = np.where(delta[at] == 0, base.view(np.uint32)[at], found)


def single(value: float, what: str) -> np.float32:
    """A weight in single precision, rounded once. Raises UsageError if that is not finite."""
    with np.errstate(all="ignore"):
        rounded = np.float32(value)
    if not np.isfinite(rounded):
        raise UsageError(f"{what} must be a finite single-precision number, not {value!r}")
    return rounded


def common_size(arrays: Sequence[F32]) -> int:
    """The size shared by flat fp32 arrays."""
    if not arrays:
        raise PvError("nothing to combine: a tensor that no vector touches is copied, not computed")
    for array in arrays:
        if array.dtype != np.float32 or array.ndim != 1 or array.size != arrays[0].size:
            raise PvError(
                f"the engine combines flat fp32 arrays of one size, not {array.dtype} {array.shape}"
            )
    return arrays[0].size
