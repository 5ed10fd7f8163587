"""The one rounding of a build: fp32 to raw storage, to nearest or stochastically, by integer operations.

Stochastic rounding goes to one of the two neighbours, up with a probability equal to the distance from the
lower one, so that its mean is the value itself: small movements of a half-precision weight survive on
average, where rounding to nearest would drop most of them. The random bits belong to (seed, tensor name,
element index), see `philox`. Invariants, in either mode and for every target:

- A value that the target can represent never changes: zeros of either sign, subnormals, infinities, NaNs.
- A finite value up to the target's largest stays finite. Beyond the largest, both modes round to nearest:
  less than half a step beyond is the largest, more is infinity. E4M3 has no infinity: there every finite
  value beyond becomes the largest, and infinity NaN.
- A NaN stays a NaN: sign and leading payload are kept, and it is made quiet where its payload is cut.
- An element's result depends on its value, the seed, the name and its index; on nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.dtypes import DTYPES
from pv.registry.errors import PvError, UsageError
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import FLOATS, widened
from pv.vecstore.tensors.philox import Stream

__all__ = ["MODES", "TARGETS", "round_to"]

MODES = ("nearest", "stochastic")
_BLOCK = 1 << 16
_ABS = np.uint32(0x7FFFFFFF)
_INF = np.uint32(0x7F800000)


@dataclass(frozen=True, slots=True)
class _Target:
    """A floating-point format narrower than fp32, described by how it cuts fp32's bits."""

    bits: int
    drop: int  # mantissa bits lost by a normal number
    least_exponent: int  # fp32's biased exponent of the smallest normal number
    largest: int  # fp32 bits of the largest finite number
    overflow_from: int  # fp32 bits of the least magnitude that rounds beyond it
    special: int  # the code of what is beyond, and of a NaN before its payload

    @property
    def cuts_alone(self) -> bool:
        """Whether sign and exponent stay as they are: then a subnormal loses no more bits than a normal."""
        return self.least_exponent == 1

    @property
    def random_bits(self) -> int:
        return 16 if self.cuts_alone else 32

    @property
    def rebase(self) -> int:
        """What to subtract from the cut bits to move from fp32's exponent bias to the target's."""
        return (self.least_exponent - 1) << (23 - self.drop)


TARGETS = FLOATS


@cache
def _target(dtype: str) -> _Target:
    """What the table of dtypes says of a format, in terms of fp32's bits."""
    row = DTYPES[dtype]
    drop = 23 - row.mantissa
    bias = ((1 << row.exponent) - 1) >> 1
    special = ((1 << row.exponent) - 1) << row.mantissa  # infinity, or E4M3's one NaN
    if not row.infinity:
        special |= (1 << row.mantissa) - 1
    largest = widened(special - 1, row)
    overflow_from = largest + (1 << (drop - 1)) if row.infinity else int(_INF)
    return _Target(row.bits, drop, 128 - bias, largest, overflow_from, special)


def round_to(
    x: NDArray[np.float32], dtype: str, mode: str, *, seed: int, name: str, start: int
) -> NDArray[Any]:
    """fp32 of any shape → raw storage of `dtype`, same shape; `start` is the index of x's first element.

    Up is taken with a probability within 2^-32 of the exact one (exact for BF16, and for an F16 down to
    2^-33). F32 comes back as a view of `x`. Raises UsageError for an unknown dtype or mode.
    """
    if dtype not in TARGETS:
        raise UsageError(
            f"a build cannot be written as {dtype}", hint=f"there are: {', '.join(sorted(TARGETS))}"
        )
    if mode not in MODES:
        raise UsageError(f"no rounding mode {mode!r}", hint=f"there are: {', '.join(MODES)}")
    if x.dtype != np.float32:
        raise PvError(f"round_to takes fp32, not {x.dtype}")
    if dtype == "F32":
        return x.view(np.uint32)
    target, stream = _target(dtype), Stream(seed, name) if mode == "stochastic" else None
    bits = np.ascontiguousarray(x).reshape(-1).view(np.uint32)  # (n,)
    out = np.empty(bits.size, storage_dtype(dtype))
    scratch = np.empty((3, min(_BLOCK, bits.size)), np.uint32)
    for low in range(0, bits.size, _BLOCK):
        block = bits[low : low + _BLOCK]
        _round_block(block, target, stream, start + low, out[low : low + _BLOCK], scratch[:, : block.size])
    return out.reshape(x.shape)


def _round_block(
    bits: NDArray[np.uint32],
    target: _Target,
    stream: Stream | None,
    start: int,
    out: NDArray[Any],
    scratch: NDArray[np.uint32],
) -> None:
    magnitude, code, increment = scratch  # (n,) each
    np.bitwise_and(bits, _ABS, out=magnitude)
    random = _random(stream, target, start, bits.size)
    if random is None:
        _half_to_even(magnitude, target.drop, out=increment)
    elif target.random_bits == 16:
        np.copyto(increment, random)
    else:
        np.right_shift(random, np.uint32(32 - target.drop), out=increment)

    # A carry out of the mantissa is the next exponent, as it should be.
    np.add(bits if target.cuts_alone else magnitude, increment, out=code)
    np.right_shift(code, np.uint32(target.drop), out=code)
    if not target.cuts_alone:
        np.subtract(code, np.uint32(target.rebase), out=code)
        np.bitwise_or(code, _sign(bits, target, out=increment), out=code)
        tiny = np.flatnonzero(magnitude < np.uint32(target.least_exponent << 23))
        if tiny.size:
            codes = _tiny(magnitude[tiny], target, None if random is None else random[tiny])
            code[tiny] = codes | _sign(bits[tiny], target)
    if int(magnitude.max()) > target.largest:
        beyond = np.flatnonzero(magnitude > np.uint32(target.largest))
        code[beyond] = _beyond(magnitude[beyond], target) | _sign(bits[beyond], target)
    np.copyto(out, code, casting="same_kind")


def _sign(
    bits: NDArray[np.uint32], target: _Target, *, out: NDArray[np.uint32] | None = None
) -> NDArray[np.uint32]:
    """The sign bit of fp32 bits, where the target has it."""
    shifted = np.right_shift(bits, np.uint32(32 - target.bits), out=out)
    return np.bitwise_and(shifted, np.uint32(1 << (target.bits - 1)), out=shifted)


def _random(stream: Stream | None, target: _Target, start: int, count: int) -> NDArray[Any] | None:
    if stream is None:
        return None
    return stream.bits16(start, count) if target.random_bits == 16 else stream.bits32(start, count)


def _half_to_even(magnitude: NDArray[np.uint32], drop: int, *, out: NDArray[np.uint32]) -> None:
    """What to add before cutting `drop` bits: just under a half, and one more if the last kept bit is 1."""
    np.right_shift(magnitude, np.uint32(drop), out=out)
    np.bitwise_and(out, np.uint32(1), out=out)
    np.add(out, np.uint32((1 << (drop - 1)) - 1), out=out)


def _tiny(
    magnitude: NDArray[np.uint32], target: _Target, random: NDArray[np.uint32] | None
) -> NDArray[np.uint32]:
    """Codes of magnitudes below the smallest normal number: the significand cut by a shift of its own."""
    # fp32's own subnormals get an implicit one that they lack: they are shifted out whole all the same.
    significand = ((magnitude & np.uint32(0x7FFFFF)) | np.uint32(0x800000)).astype(np.uint64)
    shift = (target.drop + target.least_exponent) - (magnitude >> np.uint32(23)).astype(np.int64)
    if random is None:
        # 24 bits shifted by 25 or more are below a half: 40 stands for any such shift.
        shift = np.minimum(shift, 40).astype(np.uint64)
        just_under_half = (np.uint64(1) << (shift - np.uint64(1))) - np.uint64(1)
        odd = (significand >> shift) & np.uint64(1)
        return np.asarray((significand + just_under_half + odd) >> shift, np.uint32)
    # Fixed point with 32 bits after the point; 24 + 32 bits shifted by 56 or more are nothing.
    shift = np.minimum(shift, 63).astype(np.uint64)
    fixed = (significand << np.uint64(32)) >> shift
    return np.asarray((fixed + random) >> np.uint64(32), np.uint32)


def _beyond(magnitude: NDArray[np.uint32], target: _Target) -> NDArray[np.uint32]:
    """Codes of magnitudes above the largest finite number: nearest, infinity, or NaN."""
    largest_code = (target.largest >> target.drop) - target.rebase
    code = np.where(
        magnitude < np.uint32(target.overflow_from), np.uint32(largest_code), np.uint32(target.special)
    )
    payload = magnitude & np.uint32(0x7FFFFF)
    quiet = np.where(payload & np.uint32((1 << target.drop) - 1), np.uint32(1 << (22 - target.drop)), 0)
    nan = np.uint32(target.special) | (payload >> np.uint32(target.drop)) | quiet.astype(np.uint32)
    return np.where(magnitude > _INF, nan, code)
