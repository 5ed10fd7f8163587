"""One tensor of a build: what the persona makes of it, rounded, hashed and handed on piece by piece.

`add` and compiled `ties` never hold a whole tensor of many: what they hold is a piece of each vector, or, of a tensor
that is looked at more than once, what fits into HOLD bytes. The other rules are given whole tensors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from pv.registry import ids
from pv.registry.errors import IntegrityError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.merge import loops
from pv.vecstore.merge.delta import evaluate, holdings, place, taus
from pv.vecstore.merge.folder import Finished, Write
from pv.vecstore.merge.loops import Rounding, Trim
from pv.vecstore.merge.methods import is_linear, ties
from pv.vecstore.merge.model_trim import known_trim
from pv.vecstore.merge.plan import Operand, plan, sole
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.native.kernels import Delta, Result, Values
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import Raw
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.vectors.pieces import PIECE, Pieces

__all__ = ["compute", "differing"]

HOLD = 256 << 20  # bytes of a tensor's vectors that are kept while it is looked at again


def compute(
    persona: Persona,
    base: BaseSource,
    vectors: Mapping[str, VectorSource],
    name: str,
    dtype: str,
    write: Write,
) -> Finished:
    """One tensor of the result: the base's and what is added to it, or a captured one in its place.

    `write` is given its bytes, in order. Raises BaseMismatch, CorruptPack, IntegrityError.
    """
    float_environment.check()
    row = base.manifest.tensors[name]
    rounding = Rounding(name, dtype, persona.output)
    operands = plan(persona, holdings(vectors), name)
    if operands and row.dtype not in FLOATS:
        raise IntegrityError(
            f"tensor {name!r} is {row.dtype}: a vector cannot be added to it",
            hint="`pv fsck --deep` says which vectors are damaged",
        )
    if not operands:
        return _written(row, _base_alone(base, row, rounding), rounding, write, touched=False)
    if (vector := _taken_whole(persona, operands, vectors, name)) is not None:
        kept = vector.manifest.tensors[name]["ft"]
        return _written(kept, _taken(base, vector, kept, rounding), rounding, write)
    columns = _Columns(base, row, name, operands, vectors)
    if is_linear(persona.combine) and columns.streams:
        return _written(row, _added(columns, rounding), rounding, write)
    if persona.combine.method == ties.NAME and columns.streams and loops.fits(dtype):
        return _written(row, _elected(columns, persona.combine.options, rounding), rounding, write)
    return _written(row, _evaluated(persona, base, operands, vectors, rounding), rounding, write)


Piece = tuple[Raw, Result]


def _written(
    row: TensorRow, pieces: Iterator[Piece], rounding: Rounding, write: Write, *, touched: bool = True
) -> Finished:
    """Hand on every piece, and hash them. What is written as it was has the id that it had."""
    known = row.id if not touched and row.dtype == rounding.dtype else None
    digest, moved = None if known else ids.tensor_hash(rounding.dtype, row.shape), 0
    for out, done in pieces:
        if done.lost:
            raise IntegrityError(
                f"tensor {rounding.name!r} would hold infinite or undefined weights as {rounding.dtype}",
                hint="use smaller weights, or a wider --dtype",
            )
        moved += done.moved
        data = out.data.cast("B")
        if digest is not None:
            digest.update(data)
        write(data)
    made = row if digest is None else TensorRow(rounding.dtype, row.shape, digest.hexdigest())
    return Finished(rounding.name, made, moved if touched else None)


def _base_alone(base: BaseSource, row: TensorRow, rounding: Rounding) -> Iterator[Piece]:
    for start, own in _starts(base.pieces(rounding.name)):
        if row.dtype == rounding.dtype:
            yield own, Result(0, 0)
        else:
            yield loops.add(loops.values(own, row.dtype), (), rounding, start)


def _taken(base: BaseSource, vector: VectorSource, kept: TensorRow, rounding: Rounding) -> Iterator[Piece]:
    """A captured tensor itself, where the base's was."""
    own_dtype = base.manifest.tensors[rounding.name].dtype
    its = vector.pieces(rounding.name)
    for start, own in _starts(base.pieces(rounding.name)):
        raw = its.next(own)
        moved = differing(raw, kept.dtype, own, own_dtype)
        if kept.dtype == rounding.dtype:
            yield raw, Result(moved, 0)
        else:
            out, done = loops.add(loops.values(raw, kept.dtype), (), rounding, start)
            yield out, Result(moved, done.lost)


class _Columns:
    """The base's tensor and the vectors that operands take as they are, side by side, as often as it is asked for."""

    def __init__(
        self,
        base: BaseSource,
        row: TensorRow,
        name: str,
        operands: Sequence[Operand],
        vectors: Mapping[str, VectorSource],
    ) -> None:
        self.row = row
        self._base, self._name, self._vectors = base, name, vectors
        self._operands = operands
        self.weights = [float(single(one.weight, "a weight")) for one in operands]
        self.cuts = [one.cut for one in operands]
        self._held: list[tuple[int, Values, list[Delta]]] | None = None
        held = (1 + len(operands)) * row.nbytes
        self.holds = held <= HOLD

    @property
    def streams(self) -> bool:
        """Whether every operand is one vector as it is. A sum of several is made of whole tensors."""
        return all(one.as_it_is for one in self._operands)

    def __iter__(self) -> Iterator[tuple[int, Values, list[Delta]]]:
        """(index of the first element, the base's values, a delta an operand) for each piece."""
        if self._held is not None:
            yield from self._held
            return
        seen = []
        for one in self._read():
            if self.holds:
                seen.append(one)
            yield one
        if self.holds:
            self._held = seen

    def _read(self) -> Iterator[tuple[int, Values, list[Delta]]]:
        its: list[tuple[Pieces, float]] = [
            (self._vectors[one.terms[0][1]].pieces(self._name), weight)
            for one, weight in zip(self._operands, self.weights, strict=True)
        ]
        for start, own in _starts(self._base.pieces(self._name)):
            deltas = [
                loops.delta(pieces.next(own), pieces.dtype, whole=pieces.whole, weight=weight)
                for pieces, weight in its
            ]
            yield start, loops.values(own, self.row.dtype), deltas


def _added(columns: _Columns, rounding: Rounding) -> Iterator[Piece]:
    columns.holds = False  # looked at once
    for start, own, deltas in columns:
        yield loops.add(own, deltas, rounding, start)


def _elected(columns: _Columns, options: Mapping[str, Any], rounding: Rounding) -> Iterator[Piece]:
    """TIES: rounds over the tensor until every trim is known, and one more."""
    voices = [at for at, weight in enumerate(columns.weights) if weight != 0]
    for at in voices:
        ties.check_weight(options, columns.weights[at], "a behaviour's weight")
    size = columns.row.numel
    ties.check_settled(options, columns.cuts)
    known = {at: cut for at, cut in enumerate(columns.cuts) if cut is not None}
    keep = max(1, int(float(options["density"]) * size))
    trims = {at: known_trim(known[at]) if at in known else Trim(size, keep) for at in voices}
    while looking := [at for at in voices if not trims[at].done]:
        for _, own, deltas in columns:
            for at in looking:
                trims[at].look(own, deltas[at])
        for at in looking:
            trims[at].turn()
    for start, own, deltas in columns:
        if not voices:
            yield loops.add(own, (), rounding, start)
            continue
        yield loops.ties(
            own,
            [trims[at].on(deltas[at]) for at in voices],
            rounding,
            start,
            elect=str(options["elect"]),
            merge=str(options["merge"]),
            scale=float(options["lambda"]),
            undecided=str(options["undecided"]),
        )


def _evaluated(
    persona: Persona,
    base: BaseSource,
    operands: Sequence[Operand],
    vectors: Mapping[str, VectorSource],
    rounding: Rounding,
) -> Iterator[Piece]:
    """By the rule's own numpy code, over the whole tensor."""
    own = base.tensor(rounding.name)
    added = evaluate(persona.combine, operands, taus(operands, vectors, rounding.name, own), place(own))
    assert added is not None
    for start in range(0, max(own.row.numel, 1), PIECE):
        part = slice(start, start + PIECE)
        one = loops.delta(added[part], "F32", whole=False, weight=1)
        yield loops.add(loops.values(own.raw[part], own.row.dtype), (one,), rounding, start)


def _taken_whole(
    persona: Persona, operands: Sequence[Operand], vectors: Mapping[str, VectorSource], name: str
) -> VectorSource | None:
    """From engine 2 on: the vector whose kept tensor is written itself, because it is all that the persona adds.

    Not every such tensor is base + fp32 difference (docs/decisions/0014).
    """
    if persona.engine < 2 or not is_linear(persona.combine):
        return None
    only = sole(operands)
    return vectors[only] if only is not None and vectors[only].needs_base(name) else None


def _starts(pieces: Iterator[Raw]) -> Iterator[tuple[int, Raw]]:
    """Each piece with the index of its first element."""
    start = 0
    for piece in pieces:
        yield start, piece
        start += len(piece)


def differing(raw: Raw, dtype: str, own: Raw, own_dtype: str) -> int:
    """How many elements have other bits than the base's, seen in fp32."""
    if dtype == own_dtype:
        return int(np.count_nonzero(raw != own))
    return int(np.count_nonzero(to_f32(raw, dtype).view(np.uint32) != to_f32(own, own_dtype).view(np.uint32)))
