"""A tensor whose deltas are at hand as a whole, as a merge method looks at it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from pv.vecstore.merge import loops
from pv.vecstore.merge.share import Piece, Place
from pv.vecstore.native.kernels import Values
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.reduce import BLOCK

__all__ = ["Whole", "width_of", "work_size"]

WORK = 1 << 16  # elements that a rule is given at a time


def width_of(shape: Sequence[int]) -> int:
    """Elements of a row, which is the last dimension."""
    return shape[-1] if shape else 1


def work_size(unit: int) -> int:
    """Elements that are worked on at a time: a multiple of the unit."""
    return max(1, WORK // max(unit, 1)) * max(unit, 1)


class Whole:
    """Of deltas that are at hand as a whole, (n,) fp32 each."""

    def __init__(self, place: Place, deltas: Sequence[F32]) -> None:
        self.name, self.shape = place.name, place.shape
        self._place, self._deltas = place, deltas

    @property
    def size(self) -> int:
        return self._deltas[0].size

    @property
    def width(self) -> int:
        return width_of(self.shape)

    def pieces(self, *, rows: bool = False) -> Iterator[Piece]:
        step = work_size(self.width if rows else BLOCK)
        for low in range(0, self.size, step):
            part = slice(low, low + step)
            deltas = [loops.delta(delta[part], "F32", whole=False, weight=1) for delta in self._deltas]
            yield Piece(low, deltas[0].values.raw.size, deltas, partial(self._own, part))

    def _own(self, part: slice) -> Values:
        return loops.values(self._place.base()[part], "F32")
