"""One tensor of a build: what the persona makes of it, rounded, hashed and handed on piece by piece.

No whole tensor is held of any: see columns.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from pv.registry import ids
from pv.registry.combine import Combine
from pv.registry.errors import IntegrityError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.merge import loops
from pv.vecstore.merge.columns import Columns
from pv.vecstore.merge.delta import holdings
from pv.vecstore.merge.folder import Finished, Write
from pv.vecstore.merge.loops import Rounding
from pv.vecstore.merge.methods import by_rows, is_linear, ready, ties
from pv.vecstore.merge.plan import Operand, plan, sole
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.merge.steps import Sum
from pv.vecstore.native.kernels import Result
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.array import Raw
from pv.vecstore.tensors.formats import FLOATS, to_f32

__all__ = ["compute", "differing"]


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
    columns = Columns(base, name, operands, vectors)
    return _written(row, _added(persona.combine, operands, columns, rounding), rounding, write)


_Made = tuple[Raw, Result]


def _written(
    row: TensorRow, pieces: Iterator[_Made], rounding: Rounding, write: Write, *, touched: bool = True
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


def _base_alone(base: BaseSource, row: TensorRow, rounding: Rounding) -> Iterator[_Made]:
    for start, own in _starts(base.pieces(rounding.name)):
        if row.dtype == rounding.dtype:
            yield own, Result(0, 0)
        else:
            yield loops.add(loops.values(own, row.dtype), (), rounding, start)


def _taken(base: BaseSource, vector: VectorSource, kept: TensorRow, rounding: Rounding) -> Iterator[_Made]:
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


def _added(
    rule: Combine, operands: Sequence[Operand], columns: Columns, rounding: Rounding
) -> Iterator[_Made]:
    """The base, and what the rule adds to it once it has looked at the tensor."""
    step = ready(rule, operands, columns)
    for piece in columns.pieces(rows=by_rows(rule), last=True):
        match step:
            case ties.Election() if loops.fits(rounding.dtype):
                yield step.rounded(piece, rounding)
                continue
            case Sum():
                terms = step.terms(piece)
            case _:
                terms = [loops.delta(step(piece), "F32", whole=False, weight=1)]
        yield loops.add(piece.own, terms, rounding, piece.start)


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
