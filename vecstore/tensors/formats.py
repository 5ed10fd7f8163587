"""Number formats: which unsigned integers store them, and how they widen to fp32 exactly.

A tensor travels through pv as *raw storage*: an unsigned-integer array of the element's width, so that
nothing can touch a bit by accident (a NaN's payload, a signed zero). Every BF16, F16, F8_E4M3 and F8_E5M2
value is an fp32 value; `to_f32` gives it by integer operations and table look-up alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.disk.safetensors import DTYPE_BITS
from pv.registry.errors import UsageError

__all__ = ["FLOATS", "storage_dtype", "to_f32"]

FLOATS = frozenset({"BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"})
"""The dtypes that the engine computes with: each of their values is an fp32 value."""

_BLOCK = 1 << 15  # elements looked up at a time: numpy widens the indices to 64 bits
_TABLES: Mapping[str, tuple[int, int]] = {"F16": (5, 10), "F8_E4M3": (4, 3), "F8_E5M2": (5, 2)}


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The unsigned-integer dtype that stores one element of a safetensors dtype. Raises UsageError."""
    bits = DTYPE_BITS.get(dtype, 0)
    if bits not in (8, 16, 32, 64):
        raise UsageError(
            f"{dtype} elements do not fill whole bytes, so pv cannot work on them one by one",
            hint="convert the checkpoint to BF16, F16 or F32 first",
        )
    return np.dtype(f"uint{bits}")


def to_f32(raw: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """The values of a raw storage array, exactly: any shape → the same shape, fp32.

    F32 comes back as a view of `raw`. Raises UsageError for a dtype outside FLOATS: F64, whose values fp32
    cannot hold, and all that are not floating point.
    """
    if dtype not in FLOATS:
        raise UsageError(
            f"the engine computes in fp32, which does not hold {dtype} tensors",
            hint=f"a vector can be added to: {', '.join(sorted(FLOATS))}; convert the checkpoint first, "
            "or leave this tensor out of the vector",
        )
    if raw.dtype != storage_dtype(dtype):
        raise UsageError(f"{dtype} is stored as {storage_dtype(dtype)}, not {raw.dtype}")
    if dtype == "F32":
        return raw.view(np.float32)
    flat = np.ascontiguousarray(raw).reshape(-1)
    out = np.empty(flat.size, np.uint32)
    if dtype == "BF16":
        np.left_shift(flat, np.uint32(16), out=out, dtype=np.uint32)
    else:
        table = _table(dtype)
        for low in range(0, flat.size, _BLOCK):
            np.take(table, flat[low : low + _BLOCK], out=out[low : low + _BLOCK], mode="clip")
    return out.view(np.float32).reshape(raw.shape)


@cache
def _table(dtype: str) -> NDArray[np.uint32]:
    """The fp32 bits of every code of a small format."""
    exponent_bits, mantissa_bits = _TABLES[dtype]
    table = np.array([_widen(code, exponent_bits, mantissa_bits) for code in range(_codes(dtype))], np.uint32)
    table.flags.writeable = False
    return table


def _codes(dtype: str) -> int:
    return 1 << DTYPE_BITS[dtype]


def _widen(code: int, exponent_bits: int, mantissa_bits: int) -> int:
    """One code as fp32 bits. A NaN keeps its sign, its payload and whether it is quiet."""
    sign = code >> (exponent_bits + mantissa_bits)
    exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1)
    mantissa = code & ((1 << mantissa_bits) - 1)
    top = (1 << exponent_bits) - 1
    bias = top >> 1
    if exponent_bits == 4:  # E4M3 has no infinity: only its very last code is a NaN, and that is quiet
        special = exponent == top and mantissa == (1 << mantissa_bits) - 1
    else:
        special = exponent == top
    if special:
        bits = 0x7F800000 | mantissa << (23 - mantissa_bits)
    elif exponent:
        bits = (exponent - bias + 127) << 23 | mantissa << (23 - mantissa_bits)
    elif mantissa:
        # Subnormal: mantissa * 2^(1 - bias - mantissa_bits). Its leading one becomes the implicit one.
        lead = mantissa.bit_length() - 1
        bits = (lead + 1 - bias - mantissa_bits + 127) << 23 | (mantissa << (23 - lead)) & 0x7FFFFF
    else:
        bits = 0
    return sign << 31 | bits
