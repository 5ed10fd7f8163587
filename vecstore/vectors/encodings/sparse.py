"""`sparse:p`: the share p of each tensor's elements that is largest by magnitude, as bf16; the rest is 0.

Parts of a tensor of n elements, in order of the flat index:

    "gap"     U8 (m,)     where they are. Start before the first element. A byte g below 255 moves g + 1
                          elements on, to a kept element; 255 moves 255 elements on and keeps none.
    "value"   BF16 (k,)   what they are: one for each byte of "gap" that is not 255

A tensor of fewer than two dimensions has the part "tau" of `float` instead. Gaps, not a bitmap: measured
on trained vectors they are as small or smaller up to p = 0.15, and lose little above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.encodings import floats
from pv.vecstore.vectors.encodings.shapes import expect, numel

__all__ = ["ALLOWED", "EXAMPLES", "NAME", "check", "encode", "expand", "options", "tau"]

NAME = "sparse"
EXAMPLES = ("sparse:0.1",)
ALLOWED = "the share is above 0 and at most 1"
FAR = 255

_ABS = np.uint32(0x7FFFFFFF)


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    if rows.keys() == {"tau"}:
        floats.check(rows, shape)
        return
    gaps, values = (rows[part].numel if part in rows else 0 for part in ("gap", "value"))
    if not values <= gaps <= numel(shape):
        raise FormatError(
            f"{values} values and {gaps} gaps in a tensor of {numel(shape)}: not the base's size"
        )
    expect(rows, {"gap": ({"U8"}, (gaps,)), "value": ({"BF16"}, (values,))})


def options(text: str) -> dict[str, Any] | None:
    """The share of elements that are kept."""
    try:
        share = float(text)
    except ValueError:
        return None
    return {"share": share} if 0 < share <= 1 else None


def encode(tau: F32, shape: tuple[int, ...], share: float = 0.1) -> dict[str, Array]:
    """Keep max(1, int(share * n)) of (n,) finite fp32; of equal magnitudes the first; no zeros."""
    if not 0 < share <= 1:
        raise UsageError(f"a share of {share} is not above 0 and at most 1", hint="sparse:0.1 keeps a tenth")
    if len(shape) < 2:
        return floats.encode(tau, shape)
    kept = _largest(tau, share)  # (k,) ascending
    values = round_to(tau[kept], "BF16", "nearest", seed=0, name="", start=0)
    there = (values & 0x7FFF) != 0
    return {
        "gap": _flat("U8", _gaps(kept[there])),
        "value": _flat("BF16", values[there]),
    }


def expand(parts: Mapping[str, Array], shape: tuple[int, ...]) -> Callable[[int, int], F32]:
    """tau's elements start to stop, of parts that are not dense."""
    gaps, values = parts["gap"].raw, parts["value"].raw
    ends = np.cumsum(gaps + (gaps != FAR), dtype=np.int64)  # 255 moves 255 on, any other byte g + 1
    positions = ends[gaps != FAR] - 1  # (k,)
    size = numel(shape)
    if len(positions) != len(values) or (len(ends) and ends[-1] > size):
        raise FormatError("the gaps of a sparse tensor do not fit its values or its size")

    def span(start: int, stop: int) -> F32:
        out = np.zeros(stop - start, np.float32)
        first, last = np.searchsorted(positions, (start, stop))
        out[positions[first:last] - start] = to_f32(values[first:last], "BF16")
        return out

    return span


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    return floats.tau(parts, base, shape) if "tau" in parts else expand(parts, shape)(0, numel(shape))


def _largest(tau: F32, share: float) -> NDArray[np.int64]:
    """Indices of the largest magnitudes, ascending."""
    size = tau.size
    count = min(size, max(1, int(share * size)))
    if count == size:
        return np.arange(size)
    magnitude = tau.view(np.uint32) & _ABS
    threshold = np.partition(magnitude, size - count)[size - count]
    above = np.flatnonzero(magnitude > threshold)
    equal = np.flatnonzero(magnitude == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _gaps(positions: NDArray[np.int64]) -> NDArray[np.uint8]:
    skipped = np.diff(positions, prepend=-1) - 1  # (k,) elements left out before each
    far = skipped // FAR
    gaps = np.full(len(positions) + int(far.sum()), FAR, np.uint8)
    gaps[np.cumsum(far + 1) - 1] = skipped % FAR
    return gaps


def _flat(dtype: str, raw: NDArray[np.unsignedinteger]) -> Array:
    return Array(dtype, raw.shape, raw)
