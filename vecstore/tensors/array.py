"""An array of any checkpoint dtype, as its bits.

A tensor travels through pv as *raw storage*: an unsigned-integer array of the element's width, so that
nothing can touch a bit by accident (a NaN's payload, a signed zero).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.dtypes import DTYPES
from pv.registry.errors import UsageError

__all__ = ["F32", "Array", "Raw", "storage_dtype"]

F32 = NDArray[np.float32]

Raw = NDArray[Any]
"""A flat little-endian unsigned-integer array: the bits of a tensor."""


@dataclass(frozen=True, slots=True)
class Array:
    """`raw` is flat storage integers; `dtype` a safetensors name such as "BF16"."""

    dtype: str
    shape: tuple[int, ...]
    raw: Raw


def storage_dtype(dtype: str) -> np.dtype[Any]:
    """The unsigned-integer dtype that stores one element of a safetensors dtype. Raises UsageError."""
    row = DTYPES.get(dtype)
    if row is None or row.bits % 8:
        raise UsageError(
            f"{dtype} elements do not fill whole bytes, so pv cannot work on them one by one",
            hint="convert the checkpoint to BF16, F16 or F32 first",
        )
    return np.dtype(row.storage)
