"""`int8`: tau = q * scale, one fp32 scale per row. Parts "q" (I8, the tensor's shape) and "scale" (F32, rows).

A tensor of fewer than two dimensions is one row. The product is one fp32 multiplication.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import FormatError, UsageError
from pv.vecstore.encodings.array import F32, Array

__all__ = ["NAME", "PARTS", "encode", "tau"]

NAME = "int8"
PARTS = frozenset({"q", "scale"})
LARGEST = np.float32(127)


def encode(tau: F32, shape: tuple[int, ...]) -> dict[str, Array]:
    rows = _rows(tau, shape)  # (rows, columns)
    scale = np.abs(rows).max(axis=1, initial=0) / LARGEST  # (rows,)
    if not np.isfinite(scale).all():
        raise UsageError(
            "a delta with infinite or undefined numbers cannot be kept as int8", hint="was training stable?"
        )
    safe = np.where(scale > 0, scale, np.float32(1))
    q = np.clip(np.rint(rows / safe[:, None]), -LARGEST, LARGEST).astype(np.int8)
    return {
        "q": Array("I8", shape, q.reshape(-1).view(np.uint8)),
        "scale": Array("F32", scale.shape, np.ascontiguousarray(scale, np.float32).view("<u4")),
    }


def tau(parts: Mapping[str, Array], base: Callable[[], F32]) -> F32:
    q, scale = parts["q"], parts["scale"]
    if q.dtype != "I8" or scale.dtype != "F32" or scale.shape != (_row_count(q.shape),):
        raise FormatError("an int8 part has the wrong dtype or shape")
    steps = _rows(q.raw.view(np.int8), q.shape).astype(np.float32)  # (rows, columns)
    product: F32 = steps * scale.raw.view("<f4")[:, None]
    return product.reshape(-1)


def _rows(flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """(n,) -> (rows, columns), of an empty tensor too."""
    rows = _row_count(shape)
    return flat.reshape(rows, len(flat) // max(1, rows))


def _row_count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1
