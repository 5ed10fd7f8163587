"""A tensor of the base and what each behaviour adds to it, side by side, piece by piece.

Bytes in flight do not grow with the tensor, nor, where the sources can be read in pieces of any size, with the number
of behaviours: then the pieces get smaller. No result depends on the size of a piece.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import finalize

import numpy as np

from pv.registry.manifest import TensorRow
from pv.vecstore.merge import loops
from pv.vecstore.merge.plan import Operand, vectors_of
from pv.vecstore.merge.room import SHARED, Room
from pv.vecstore.merge.share import Piece
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.merge.whole import width_of, work_size
from pv.vecstore.native.kernels import Delta, Values
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.reduce import BLOCK
from pv.vecstore.vectors.pieces import PIECE

__all__ = ["Columns"]

FLIGHT = 4 << 20  # bytes read at a time of all columns together, where any number may be read
KEPT = 256 << 20  # bytes of a tensor that are kept to be looked at again, where reading is decoding


class Columns:
    """From the base and the vectors that operands name: each read once a pass."""

    def __init__(
        self,
        base: BaseSource,
        name: str,
        operands: Sequence[Operand],
        vectors: Mapping[str, VectorSource],
    ) -> None:
        self.name, self.row = name, base.manifest.tensors[name]
        self.shape = self.row.shape
        self._base, self._vectors, self._operands = base, vectors, operands
        self._needed = vectors_of(operands)
        columns = 1 + len(self._needed)
        self._room = SHARED if base.light else Room(KEPT)
        self._kept: list[tuple[Values, list[Delta]]] | None = None
        self._taken: finalize[[int], Columns] | None = None
        self._step = min(PIECE, _fitting(columns, self.row)) if base.light else PIECE

    @property
    def size(self) -> int:
        return self.row.numel

    @property
    def width(self) -> int:
        return width_of(self.shape)

    def pieces(self, *, rows: bool = False, last: bool = False) -> Iterator[Piece]:
        """`Tensor.pieces`; nothing is kept of what is looked at for the `last` time."""
        return _cut(self._columns(last), self.width if rows else BLOCK)

    def _columns(self, last: bool) -> Iterator[tuple[Values, list[Delta]]]:
        if self._kept is not None:
            yield from self._kept
            return
        seen: list[tuple[Values, list[Delta]]] = []
        keeps = False
        for at, one in enumerate(self._read()):
            if not at and not last:  # all pieces have as many bytes an element as the first
                keeps = self._takes(_nbytes(one) * self.size // max(one[0].raw.size, 1))
            if keeps:
                seen.append(one)
            yield one
        if keeps:
            self._kept = seen

    def _takes(self, nbytes: int) -> bool:
        """Room for all of it, which is given back once nobody looks at the tensor any more."""
        if self._taken is None and self._room.take(nbytes):
            self._taken = finalize(self, self._room.give, nbytes)
        return self._taken is not None

    def _read(self) -> Iterator[tuple[Values, list[Delta]]]:
        readers = {vector: self._vectors[vector].pieces(self.name) for vector in self._needed}
        for raw in self._base.pieces(self.name, self._step):
            found = {
                vector: loops.delta(reader.next(raw), reader.dtype, whole=reader.whole, weight=1)
                for vector, reader in readers.items()
            }
            own = loops.values(raw, self.row.dtype)
            yield own, [_delta(one, own, found) for one in self._operands]


def _nbytes(one: tuple[Values, Sequence[Delta]]) -> int:
    return one[0].raw.nbytes + sum(delta.values.raw.nbytes for delta in one[1])


def _fitting(columns: int, row: TensorRow) -> int:
    """Elements of a piece, so that all columns together are not more than FLIGHT."""
    wide = max(1, row.nbytes // max(row.numel, 1))
    return max(BLOCK, FLIGHT // (columns * wide) // BLOCK * BLOCK)


def _delta(operand: Operand, own: Values, found: Mapping[str, Delta]) -> Delta:
    """What an operand adds, without its weight."""
    if operand.as_it_is:
        return found[operand.terms[0][1]]
    if not operand.terms:
        return loops.delta(np.zeros(own.raw.size, np.float32), "F32", whole=False, weight=1)
    base = loops.f32(own)
    terms = [(coefficient, loops.tau(found[vector], base)) for coefficient, vector in operand.terms]
    return loops.delta(scaled_sum(terms), "F32", whole=False, weight=1)


def _cut(columns: Iterable[tuple[Values, list[Delta]]], unit: int) -> Iterator[Piece]:
    """Pieces of whole units; what is left over of one that was read goes before the next."""
    start, step = 0, work_size(unit)
    rest: tuple[Values, list[Delta]] | None = None
    for own, deltas in columns:
        if rest is not None:
            own, deltas = _joined(rest, (own, deltas))
        size = own.raw.size
        whole = size // unit * unit if unit else size
        for low in range(0, whole, step):
            yield _piece(start + low, own, deltas, slice(low, min(low + step, whole)))
        start += whole
        rest = None if whole == size else _part((own, deltas), slice(whole, size))
    if rest is not None:
        yield _piece(start, *rest, slice(0, rest[0].raw.size))


def _piece(start: int, own: Values, deltas: Sequence[Delta], part: slice) -> Piece:
    mine, its = _part((own, deltas), part)
    return Piece(start, mine.raw.size, its, lambda: mine)


def _part(one: tuple[Values, Sequence[Delta]], part: slice) -> tuple[Values, list[Delta]]:
    return Values(one[0].raw[part], one[0].dtype), [loops.cut(delta, part) for delta in one[1]]


def _joined(
    first: tuple[Values, Sequence[Delta]], second: tuple[Values, Sequence[Delta]]
) -> tuple[Values, list[Delta]]:
    def together(a: Values, b: Values) -> Values:
        return Values(np.concatenate([a.raw, b.raw]), a.dtype)

    pairs = zip(first[1], second[1], strict=True)
    return together(first[0], second[0]), [
        Delta(together(a.values, b.values), a.whole, a.weight) for a, b in pairs
    ]
