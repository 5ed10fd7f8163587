"""Number formats that fit into fp32, and how they widen to it exactly.

Every BF16, F16, F8_E4M3 and F8_E5M2 value is an fp32 value; `to_f32` gives it by integer operations and
table look-up alone.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.dtypes import DTYPES, DType
from pv.registry.errors import UsageError
from pv.vecstore.tensors.array import Raw, storage_dtype

__all__ = ["FLOATS", "all_finite", "to_f32", "widened"]

FLOATS = frozenset(name for name, row in DTYPES.items() if row.in_fp32)
"""The dtypes that the engine computes with: each of their values is an fp32 value."""

_BLOCK = 1 << 15  # elements looked up at a time: numpy widens the indices to 64 bits


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


def all_finite(raw: Raw, dtype: str) -> bool:
    """False if an element is infinite or not a number. For the floats of FLOATS; True for what is no float."""
    row = DTYPES[dtype]
    lowest = 0 if row.infinity else (1 << row.mantissa) - 1  # E4M3: only the last code is a NaN
    top = raw.dtype.type(((1 << row.exponent) - 1) << row.mantissa | lowest)
    return not (row.is_float and ((raw & top) == top).any())


@cache
def _table(dtype: str) -> NDArray[np.uint32]:
    """The fp32 bits of every code of a small format."""
    table = np.array([widened(code, DTYPES[dtype]) for code in range(1 << DTYPES[dtype].bits)], np.uint32)
    table.flags.writeable = False
    return table


def widened(code: int, row: DType) -> int:
    """One code of a format that fits into fp32, as fp32 bits. A NaN keeps its sign, payload and quiet bit."""
    sign = code >> (row.exponent + row.mantissa)
    exponent = (code >> row.mantissa) & ((1 << row.exponent) - 1)
    mantissa = code & ((1 << row.mantissa) - 1)
    top = (1 << row.exponent) - 1
    bias = top >> 1
    special = exponent == top and (row.infinity or mantissa == (1 << row.mantissa) - 1)
    if special:
        bits = 0x7F800000 | mantissa << (23 - row.mantissa)
    elif exponent:
        bits = (exponent - bias + 127) << 23 | mantissa << (23 - row.mantissa)
    elif mantissa:
        # Subnormal: mantissa * 2^(1 - bias - mantissa bits). Its leading one becomes the implicit one.
        lead = mantissa.bit_length() - 1
        bits = (lead + 1 - bias - row.mantissa + 127) << 23 | (mantissa << (23 - lead)) & 0x7FFFFF
    else:
        bits = 0
    return sign << 31 | bits
