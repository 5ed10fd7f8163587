"""The compiled passes of the packs' delta codec, called with arrays: see codecs.c, and packs/codecs/chunks.py."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.dtypes import DType
from pv.vecstore.native.library import library

__all__ = ["counts", "fits", "sort", "unsort"]

Raw = NDArray[Any]
Counts = NDArray[np.int64]


def fits(dtype: DType) -> bool:
    """Whether there is a compiled pass for these elements."""
    return dtype.is_float and dtype.itemsize <= 4 and library() is not None


def counts(reference: Raw, dtype: DType) -> Counts:
    """How many elements have each exponent: (2^exponent bits,)."""
    found = np.zeros(1 << dtype.exponent, np.int64)
    _call("count", dtype, reference, found)
    return found


def sort(raw: Raw, reference: Raw, stretches: Counts, dtype: DType) -> Raw:
    """The folded steps from the reference, sorted by its exponent: (n,)."""
    folded = np.empty_like(raw)
    _call("sort", dtype, reference, _starts(stretches), first=raw, last=folded)
    return folded


def unsort(folded: Raw, reference: Raw, stretches: Counts, dtype: DType) -> Raw:
    """The inverse: what the folded steps lead to from the reference, (n,)."""
    raw = np.empty_like(folded)
    _call("unsort", dtype, reference, _starts(stretches), first=folded, last=raw)
    return raw


def _starts(stretches: Counts) -> Counts:
    return np.cumsum(stretches) - stretches


def _call(
    name: str,
    dtype: DType,
    reference: Raw,
    table: Counts,
    *,
    first: Raw | None = None,
    last: Raw | None = None,
) -> None:
    compiled = library()
    assert compiled is not None
    arrays = [array for array in (first, reference) if array is not None]
    assert all(array.flags.c_contiguous and array.itemsize == dtype.itemsize for array in arrays)
    function = getattr(compiled, f"pv_{name}{dtype.bits}")
    function.restype = None
    function(
        *(ctypes.c_void_p(array.ctypes.data) for array in arrays),
        ctypes.c_int64(len(reference)),
        ctypes.c_int32(dtype.mantissa),
        ctypes.c_uint32((1 << dtype.exponent) - 1),
        *(ctypes.c_void_p(array.ctypes.data) for array in (table, last) if array is not None),
    )
