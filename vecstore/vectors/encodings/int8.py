"""`int8`: tau = q * scale, one fp32 scale per row. Parts "q" (I8, the tensor's shape) and "scale" (F32, rows).

A tensor of fewer than two dimensions is one row. The product is one fp32 multiplication.

A step is an eighth of the row's root mean square, or wider where the largest element would not fit: the
error is 1/(8 sqrt(12)), 3.6 % of tau's norm and without bias, and q's entropy about 5 bits. Finer steps cost
a bit each time they are halved, and buy nothing that behaviour shows (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.encodings.shapes import expect

__all__ = ["ALLOWED", "EXAMPLES", "NAME", "check", "encode", "options", "tau"]

NAME = "int8"
EXAMPLES = ("int8",)
ALLOWED = "nothing stands after its name"
LARGEST = np.float32(127)
STEPS_PER_RMS = 8


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    expect(rows, {"q": ({"I8"}, shape), "scale": ({"F32"}, (_row_count(shape),))})


def options(text: str) -> dict[str, Any] | None:
    """There are none to ask for."""
    return {} if not text else None


def encode(tau: F32, shape: tuple[int, ...]) -> dict[str, Array]:
    rows = _rows(tau, shape)  # (rows, columns)
    rms = np.sqrt(np.square(rows, dtype=np.float64).mean(axis=1)) if rows.size else np.zeros(len(rows))
    largest = np.abs(rows).max(axis=1, initial=0)
    scale = np.maximum(rms / STEPS_PER_RMS, largest / LARGEST).astype(np.float32)  # (rows,)
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


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    q, scale = parts["q"], parts["scale"]
    found: F32 = _rows(q.raw.view(np.int8), shape).astype(np.float32)  # (rows, columns)
    found *= scale.raw.view("<f4")[:, None]  # in place: fresh memory costs more than the product
    return found.reshape(-1)


def _rows(flat: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """(n,) -> (rows, columns), of an empty tensor too."""
    rows = _row_count(shape)
    return flat.reshape(rows, len(flat) // max(1, rows))


def _row_count(shape: tuple[int, ...]) -> int:
    return shape[0] if len(shape) > 1 else 1
