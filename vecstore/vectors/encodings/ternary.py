"""`ternary`: every element is -scale, 0 or +scale, with one fp32 scale per row.

Parts of a tensor of n elements, as a matrix of `rows` (the last dimension is a row):

    "t"       U8 (ceil(n / 4),)   two bits an element, in order of the flat index, the first in the lowest
                                  bits: 0 is 0, 1 is +1, 2 is -1, 3 is an error; unused bits are 0
    "scale"   F32 (rows,)

    tau[i, j] = t[i, j] * scale[i], one fp32 multiplication

Threshold and scale of a row leave the least squared error that is possible: with magnitudes in descending
order, the k largest are kept, where (their sum)^2 / k is greatest, and their mean is the scale (Li et al.,
"Ternary Weight Networks", 2016, eq. 5, solved exactly). A tensor of fewer than two dimensions has the part
"tau" of `float` instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.encodings import floats
from pv.vecstore.vectors.encodings.shapes import by_row, expect, matrix, numel

__all__ = ["ALLOWED", "EXAMPLES", "NAME", "check", "encode", "expand", "options", "tau"]

NAME = "ternary"
EXAMPLES = ("ternary",)
ALLOWED = "nothing stands after its name"

_BLOCK = 1 << 20  # elements sorted at a time
_VALUES = np.array([0, 1, -1], np.float32)


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    if rows.keys() == {"tau"}:
        floats.check(rows, shape)
    else:
        packed, height = -(-numel(shape) // 4), matrix(shape)[0]
        expect(rows, {"t": ({"U8"}, (packed,)), "scale": ({"F32"}, (height,))})


def options(text: str) -> dict[str, Any] | None:
    """There are none to ask for."""
    return {} if not text else None


def encode(tau: F32, shape: tuple[int, ...]) -> dict[str, Array]:
    """(n,) finite fp32 of a shape → signs in two bits and scales."""
    if len(shape) < 2:
        return floats.encode(tau, shape)
    height, width = matrix(shape)
    whole = tau.reshape(height, width)
    fields = np.zeros(-(-tau.size // 4) * 4, np.uint8)
    scale = np.zeros(height, np.float32)
    step = max(1, _BLOCK // max(1, width))
    for low in range(0, height if width else 0, step):
        block = whole[low : low + step]  # (step, columns)
        kept, scale[low : low + step] = _fit(np.abs(block))
        signs = np.where(kept, np.where(block < 0, np.uint8(2), np.uint8(1)), np.uint8(0))
        fields[low * width : low * width + block.size] = signs.reshape(-1)
    quads = fields.reshape(-1, 4)  # (bytes, 4)
    packed = quads[:, 0] | quads[:, 1] << 2 | quads[:, 2] << 4 | quads[:, 3] << 6
    return {"t": Array("U8", packed.shape, packed), "scale": Array("F32", scale.shape, scale.view("<u4"))}


def _fit(magnitude: F32) -> tuple[NDArray[np.bool_], F32]:
    """(rows, columns) → which elements to keep, (rows, columns), and the mean of those, (rows,)."""
    falling = -np.sort(-magnitude, axis=1)
    sums = np.cumsum(falling, axis=1, dtype=np.float64)
    gain = sums * sums / np.arange(1, magnitude.shape[1] + 1)
    best = np.argmax(gain, axis=1)[:, None]
    kept = (magnitude >= np.take_along_axis(falling, best, 1)) & (magnitude > 0)
    count = np.count_nonzero(kept, axis=1)
    total = np.where(kept, magnitude, np.float32(0)).sum(axis=1, dtype=np.float64)
    return kept, (total / np.maximum(count, 1)).astype(np.float32)


def expand(parts: Mapping[str, Array], shape: tuple[int, ...]) -> Callable[[int, int], F32]:
    """tau's elements start to stop, of parts that are not dense."""
    size, packed, scale = numel(shape), parts["t"].raw, parts["scale"].raw.view("<f4")
    width = matrix(shape)[1]

    def span(start: int, stop: int) -> F32:
        there = packed[start // 4 : -(-stop // 4)]
        fields = np.empty((len(there), 4), np.uint8)
        for place in range(4):
            fields[:, place] = (there >> np.uint8(2 * place)) & np.uint8(3)
        flat = fields.reshape(-1)
        skip = start % 4
        if (flat == 3).any() or (stop == size and flat[skip + stop - start :].any()):
            raise FormatError("a ternary tensor has fields that mean nothing")
        return _VALUES[flat[skip : skip + stop - start]] * by_row(scale, width, start, stop)

    return span


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    return floats.tau(parts, base, shape) if "tau" in parts else expand(parts, shape)(0, numel(shape))
