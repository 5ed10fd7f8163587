"""The order-preserving map of floats to integers, and what a delta between two of them is sorted by."""

from __future__ import annotations

import numpy as np

from pv.registry.dtypes import DType
from pv.vecstore.tensors.array import Raw

__all__ = ["exponent", "fold", "from_ordered", "to_ordered", "unfold"]


def exponent(raw: Raw, dtype: DType) -> Raw:
    """The exponent field of every element: the coarse magnitude that the delta is sorted by."""
    field = (raw >> raw.dtype.type(dtype.mantissa)) & raw.dtype.type((1 << dtype.exponent) - 1)
    narrow: Raw = field.astype(np.uint8 if dtype.exponent <= 8 else np.uint16)
    return narrow


def to_ordered(raw: Raw, dtype: DType) -> Raw:
    """Map float bits to unsigned integers in the order of the values: a bijection on every bit pattern.

    Negative patterns are complemented, positive ones get the top bit: -0 and +0 stay apart, NaNs keep
    their payload.
    """
    if not dtype.is_float:
        return raw
    top = raw.dtype.type(1 << (dtype.bits - 1))
    signed = raw.view(f"<i{dtype.itemsize}") >> (dtype.bits - 1)  # all ones where negative
    ordered: Raw = raw ^ (signed.view(raw.dtype) | top)
    return ordered


def from_ordered(ordered: Raw, dtype: DType) -> Raw:
    """The inverse of `to_ordered`."""
    if not dtype.is_float:
        return ordered
    top = ordered.dtype.type(1 << (dtype.bits - 1))
    positive = ordered.view(f"<i{dtype.itemsize}") >> (dtype.bits - 1)  # all ones where the top bit is set
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
