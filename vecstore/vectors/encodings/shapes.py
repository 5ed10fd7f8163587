"""What the parts of a tensor must be: checked against the manifest and the base, before memory is taken.

A manifest may come from a stranger and claim anything. Every encoding says what its parts may be for a base
tensor of a given shape; nothing is read that does not fit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np

from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32

__all__ = ["by_row", "expect", "matrix", "numel"]


def numel(shape: tuple[int, ...]) -> int:
    count = 1
    for n in shape:
        count *= n
    return count


def matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns): a row is the last dimension; fewer than two dimensions are one row."""
    if len(shape) < 2:
        return 1, numel(shape)
    return numel(shape[:-1]), shape[-1]


def expect(
    rows: Mapping[str, TensorRow], wanted: Mapping[str, tuple[Collection[str], tuple[int, ...]]]
) -> None:
    """Exactly the parts `wanted`: {part: (dtypes, shape)}. Raises FormatError."""
    if rows.keys() != wanted.keys():
        raise FormatError(f"its parts are {_names(rows)}, not {_names(wanted)}")
    for part, (dtypes, shape) in wanted.items():
        row = rows[part]
        if row.dtype not in dtypes:
            raise FormatError(f"part {part!r} is {row.dtype}, not {' or '.join(sorted(dtypes))}")
        if row.shape != shape:
            raise FormatError(
                f"part {part!r} has shape {list(row.shape)}, not {list(shape)}: not the base's size"
            )


def _names(parts: Collection[str]) -> str:
    return ", ".join(repr(part[:20]) for part in sorted(parts)[:6]) or "none"


def by_row(scale: F32, width: int, start: int, stop: int) -> F32:
    """The scales of the rows that elements start to stop lie in, one an element."""
    if stop == start:
        return np.empty(0, np.float32)
    rows = np.arange(start // width, (stop - 1) // width + 1)
    counts = np.minimum((rows + 1) * width, stop) - np.maximum(rows * width, start)
    return np.repeat(scale[rows], counts)
