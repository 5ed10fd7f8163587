"""Two checkpoints, held against one another in one pass over the bytes of both.

A tensor is read in blocks, so that memory is bounded by the blocks in flight; only a spectrum needs the difference of a
whole tensor. Measured on the weights as they are, in fp32, with sums in fp64.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
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
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.parallel import ordered_map

__all__ = ["Measured", "compare_weights"]

BLOCK = 1 << 20  # elements read at a time
BLOCKS = 16  # blocks that a worker takes at a time


@dataclass(frozen=True, slots=True)
class Measured:
    """One tensor. `sums` is None for what is not numbers that fp32 holds: of that, only whether the bytes are the same.

    `same`: no element differs in fp32; of what is not finite, no byte.
    """

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
    work = [piece for one in both.shared for piece in _pieces(one, heads, spectra)]
    add = counted(progress, sum(piece.nbytes for piece in work))
    found: dict[str, list[_Found]] = {}
    for piece, one in zip(work, ordered_map(partial(_look, a, both), work, threads=threads), strict=True):
        found.setdefault(piece.one.name, []).append(one)
        add(piece.nbytes)
    return [_measured(a, both, one, heads, found.get(one.name, [])) for one in both.shared]


# A piece of a tensor: what one worker takes at a time


@dataclass(frozen=True, slots=True)
class _Piece:
    """`ranges` are (head, start, stop), each read as one block."""

    one: Shared
    split: Split | None
    ranges: Sequence[tuple[int, int, int]]
    spectrum: bool = False

    @property
    def nbytes(self) -> int:
        """Of both."""
        return sum(stop - start for _, start, stop in self.ranges) * (_width(self.one.a) + _width(self.one.b))


@dataclass(frozen=True, slots=True)
class _Found:
    heads: dict[int, list[Sums]]
    same: bool
    spectrum: Spectrum | None = None


def _pieces(one: Shared, heads: HeadCount | None, spectra: bool) -> Iterator[_Piece]:
    """A large tensor is many pieces, so that all threads have work, unless it is wanted as a whole."""
    split = None if heads is None or not one.floats else heads.split(one.name, one.shape)
    ranges = list(_ranges(one, split))
    if spectra and one.floats and len(one.shape) == 2:
        yield _Piece(one, split, ranges, spectrum=True)
    else:
        yield from (_Piece(one, split, ranges[at : at + BLOCKS]) for at in range(0, len(ranges), BLOCKS))


def _look(a: Weights, both: Together, piece: _Piece) -> _Found:
    one, split, read = piece.one, piece.split, _Reader(a, both, piece.one)
    if not one.floats:
        return _Found({}, read.same(piece.ranges))
    step = np.empty(one.numel, np.float32) if piece.spectrum else None
    parts: dict[int, list[Sums]] = {}
    for head, start, stop in piece.ranges:
        x, y = read(start, stop)
        if split is not None and split.by_columns:
            for (at, mine), (_, theirs) in zip(split.parts(x), split.parts(y), strict=True):
                parts.setdefault(at, []).append(measure(mine, one.a, theirs, one.b))
        else:
            parts.setdefault(head, []).append(measure(x, one.a, y, one.b))
        if step is not None:
            with np.errstate(all="ignore"):
                np.subtract(to_f32(y, one.b), to_f32(x, one.a), out=step[start:stop])
    spread = None if step is None else spectrum(one.name, step.reshape(one.shape))
    return _Found(parts, same=False, spectrum=spread)


def _measured(
    a: Weights, both: Together, one: Shared, heads: HeadCount | None, found: Sequence[_Found]
) -> Measured:
    """What was found of the pieces, together."""
    if not one.floats:
        return Measured(one.name, one.numel, None, all(piece.same for piece in found))
    each: dict[int, list[Sums]] = {}
    for piece in found:
        for head, sums in piece.heads.items():
            each.setdefault(head, []).extend(sums)
    by_head = {head: total(sums) for head, sums in sorted(each.items())}
    whole = total(list(by_head.values()))
    same = whole.changed == 0 if whole.finite else _Reader(a, both, one).same(list(_ranges(one, None)))
    split = None if heads is None else heads.split(one.name, one.shape)
    moved = () if split is None else _heads(split, one.name, by_head)
    spread = next((piece.spectrum for piece in found if piece.spectrum is not None), None)
    return Measured(one.name, one.numel, whole, same, moved, spread)


class _Reader:
    """Elements start to stop of a tensor of both, as storage integers."""

    def __init__(self, a: Weights, both: Together, one: Shared) -> None:
        self._a, self._both, self._one = a, both, one

    def __call__(self, start: int, stop: int) -> tuple[Raw, Raw]:
        one, wide, other = self._one, _width(self._one.a), _width(self._one.b)
        mine = self._a.read(one.name, start * wide, stop * wide)
        theirs = self._both.read_b(one.name, start * other, stop * other)
        return np.frombuffer(mine, storage_dtype(one.a)), np.frombuffer(theirs, storage_dtype(one.b))

    def same(self, ranges: Iterable[tuple[int, int, int]]) -> bool:
        """Whether the bytes are."""
        one = self._one
        return one.a == one.b and all(np.array_equal(*self(start, stop)) for _, start, stop in ranges)


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
