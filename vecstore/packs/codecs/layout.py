"""Bit layouts of the dtypes that checkpoints have, and the order-preserving map of floats to integers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["LAYOUTS", "Layout", "Raw", "fold", "from_ordered", "to_ordered", "unfold"]

Raw = NDArray[Any]
"""A flat little-endian unsigned-integer array: the bits of a tensor."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`exponent_bits` is 0 for integers, whose order is already their own."""

    itemsize: int
    exponent_bits: int = 0
    mantissa_bits: int = 0

    @property
    def storage(self) -> np.dtype[Any]:
        return np.dtype(f"<u{self.itemsize}")

    @property
    def is_float(self) -> bool:
        return self.exponent_bits > 0

    def exponent(self, raw: Raw) -> Raw:
        """The exponent field of every element: the coarse magnitude that the delta is sorted by."""
        field = (raw >> raw.dtype.type(self.mantissa_bits)) & raw.dtype.type((1 << self.exponent_bits) - 1)
        narrow: Raw = field.astype(np.uint8 if self.exponent_bits <= 8 else np.uint16)
        return narrow

    def all_finite(self, raw: Raw) -> bool:
        """False if an element is infinite or not a number. For the floats that vectors move: not the FNUZ kinds."""
        top = ((1 << self.exponent_bits) - 1) << self.mantissa_bits
        if (self.exponent_bits, self.mantissa_bits) == (4, 3):  # F8_E4M3 has no infinities, and one NaN
            top = 0x7F
        top = raw.dtype.type(top)
        return not (self.is_float and ((raw & top) == top).any())


LAYOUTS: Mapping[str, Layout] = {
    "BF16": Layout(2, 8, 7),
    "F16": Layout(2, 5, 10),
    "F32": Layout(4, 8, 23),
    "F64": Layout(8, 11, 52),
    "F8_E4M3": Layout(1, 4, 3),
    "F8_E5M2": Layout(1, 5, 2),
    "F8_E4M3FNUZ": Layout(1, 4, 3),
    "F8_E5M2FNUZ": Layout(1, 5, 2),
    "F8_E8M0": Layout(1),
    "F4": Layout(1),
    "F6_E2M3": Layout(1),
    "F6_E3M2": Layout(1),
    "BOOL": Layout(1),
    "I8": Layout(1),
    "U8": Layout(1),
    "I16": Layout(2),
    "U16": Layout(2),
    "I32": Layout(4),
    "U32": Layout(4),
    "I64": Layout(8),
    "U64": Layout(8),
    "C64": Layout(8),
}


def to_ordered(raw: Raw, layout: Layout) -> Raw:
    """Map float bits to unsigned integers in the order of the values: a bijection on every bit pattern.

    Negative patterns are complemented, positive ones get the top bit: -0 and +0 stay apart, NaNs keep
    their payload.
    """
    if not layout.is_float:
        return raw
    bits = 8 * layout.itemsize
    top = raw.dtype.type(1 << (bits - 1))
    signed = raw.view(f"<i{layout.itemsize}") >> (bits - 1)  # all ones where negative
    ordered: Raw = raw ^ (signed.view(raw.dtype) | top)
    return ordered


def from_ordered(ordered: Raw, layout: Layout) -> Raw:
    """The inverse of `to_ordered`."""
    if not layout.is_float:
        return ordered
    bits = 8 * layout.itemsize
    top = ordered.dtype.type(1 << (bits - 1))
    positive = ordered.view(f"<i{layout.itemsize}") >> (bits - 1)  # all ones where the top bit is set
    raw: Raw = ordered ^ (~positive.view(ordered.dtype) | top)
    return raw


def fold(step: Raw) -> Raw:
    """0, -1, 1, -2, ... modulo 2^bits to 0, 1, 2, 3, ...: small steps of both signs become small integers."""
    signed = step.view(f"<i{step.itemsize}")
    folded: Raw = ((signed << 1) ^ (signed >> (8 * step.itemsize - 1))).view(step.dtype)
    return folded


def unfold(value: Raw) -> Raw:
    """The inverse of `fold`."""
    one = value.dtype.type(1)
    step: Raw = (value >> one) ^ (~(value & one) + one)
    return step
