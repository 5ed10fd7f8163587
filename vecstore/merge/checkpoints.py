"""Two checkpoints, held against one another in one pass over the bytes of both.

A tensor is read in blocks, so that memory is bounded by the blocks in flight; only a spectrum needs the difference of a
whole tensor. Measured on the weights as they are, in fp32, with sums in fp64.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from pv.registry.dtypes import DTYPES
from pv.vecstore.checkpoints.checkpoint import Weights
from pv.vecstore.checkpoints.together import Shared, Together
from pv.vecstore.merge.heads import Head, HeadCount, Split
from pv.vecstore.merge.movement import Sums, measure, total
from pv.vecstore.merge.spectrum import Spectrum, spectrum
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.array import F32, Raw, storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.parallel import ordered_map

__all__ = ["Measured", "compare_weights"]

BLOCK = 1 << 20  # elements read at a time


@dataclass(frozen=True, slots=True)
class Measured:
    """One tensor. `sums` is None for what is not numbers that fp32 holds: of that, only whether the bytes are the same."""

    name: str
    elements: int
    sums: Sums | None
    same: bool
    heads: tuple[Head, ...] = ()
    spectrum: Spectrum | None = None


def compare_weights(
    a: Weights,
    both: Together,
    *,
    heads: HeadCount | None = None,
    spectra: bool = False,
    threads: int = 1,
    progress: Progress | None = None,
) -> list[Measured]:
    """Every tensor that both have, in order of name. Raises FormatError if a file becomes shorter meanwhile."""
    sizes = [one.numel * (_width(one.a) + _width(one.b)) for one in both.shared]
    add = counted(progress, sum(sizes))
    look = partial(_measured, a, both, heads, spectra)
    found = []
    for size, one in zip(sizes, ordered_map(look, both.shared, threads=threads), strict=True):
        found.append(one)
        add(size)
    return found


def _measured(a: Weights, both: Together, heads: HeadCount | None, spectra: bool, one: Shared) -> Measured:
    read = _Reader(a, both, one)
    if not one.floats:
        return Measured(one.name, one.numel, None, read.same())
    split = None if heads is None else heads.split(one.name, one.shape)
    step = np.empty(one.numel, np.float32) if spectra and len(one.shape) == 2 else None
    parts: dict[int, list[Sums]] = {}
    for head, start, stop in _ranges(one, split):
        x, y = read(start, stop)
        if split is not None and split.by_columns:
            for (at, mine), (_, theirs) in zip(split.parts(x), split.parts(y), strict=True):
                parts.setdefault(at, []).append(measure(mine, one.a, theirs, one.b))
        else:
            parts.setdefault(head, []).append(measure(x, one.a, y, one.b))
        if step is not None:
            with np.errstate(all="ignore"):
                np.subtract(to_f32(y, one.b), to_f32(x, one.a), out=step[start:stop])
    each = {head: total(found) for head, found in sorted(parts.items())}
    sums = total(list(each.values()))
    spread = _spectrum(one, step) if step is not None and sums.finite else None
    moved = () if split is None else _heads(split, one.name, each)
    return Measured(one.name, one.numel, sums, sums.changed == 0, moved, spread)


class _Reader:
    """Elements start to stop of a tensor of both, as storage integers."""

    def __init__(self, a: Weights, both: Together, one: Shared) -> None:
        self._a, self._both, self._one = a, both, one

    def __call__(self, start: int, stop: int) -> tuple[Raw, Raw]:
        one, wide, other = self._one, _width(self._one.a), _width(self._one.b)
        mine = self._a.read(one.name, start * wide, stop * wide)
        theirs = self._both.read_b(one.name, start * other, stop * other)
        return np.frombuffer(mine, storage_dtype(one.a)), np.frombuffer(theirs, storage_dtype(one.b))

    def same(self) -> bool:
        """Whether the bytes are."""
        one = self._one
        return one.a == one.b and all(
            np.array_equal(*self(start, stop)) for _, start, stop in _ranges(one, None)
        )


def _width(dtype: str) -> int:
    return DTYPES[dtype].itemsize


def _ranges(one: Shared, split: Split | None) -> Iterable[tuple[int, int, int]]:
    """(head, start, stop) of the blocks: none goes over the end of a head, or of a row that is cut in heads."""
    pieces = 1 if split is None or split.by_columns else split.count
    row = 1 if split is None else split.columns
    step = max(BLOCK // row, 1) * row
    for head in range(pieces):
        low, high = (one.numel // pieces * at for at in (head, head + 1))
        for start in range(low, high, step):
            yield head, start, min(start + step, high)


def _heads(split: Split, name: str, each: dict[int, Sums]) -> tuple[Head, ...]:
    return tuple(Head(split.projection, head, sums.movement(name)) for head, sums in each.items())


def _spectrum(one: Shared, step: F32) -> Spectrum | None:
    return spectrum(one.name, step.reshape(one.shape))
