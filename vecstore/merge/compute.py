"""One tensor of a build: what the persona makes of it, rounded, hashed and handed on piece by piece."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pv.registry import ids
from pv.registry.errors import IntegrityError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.merge.delta import evaluate, holdings, place, taus
from pv.vecstore.merge.folder import Finished, Write
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.plan import Operand, plan, sole
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import BaseTensor

__all__ = ["compute", "differing"]

BLOCK = 1 << 20  # elements rounded at a time: no result depends on it


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
    own = base.tensor(name)
    row, raw, added, moved = own.row, own.raw, None, None
    if operands := plan(persona, holdings(vectors), name):
        if row.dtype not in FLOATS:
            raise IntegrityError(
                f"tensor {name!r} is {row.dtype}: a vector cannot be added to it",
                hint="`pv fsck --deep` says which vectors are damaged",
            )
        if (vector := _taken_whole(persona, operands, vectors, name)) is not None:
            row, raw = vector.kept(name, own)
            moved = differing(raw, row.dtype, own)
        else:
            added = evaluate(persona.combine, operands, taus(operands, vectors, name, own), place(own))
            moved = None if added is None else int(np.count_nonzero(added))
    if added is None and row.dtype == dtype:
        write(raw.data.cast("B"))
        return Finished(name, row, moved)

    out = np.empty(len(raw), storage_dtype(dtype))
    for start in range(0, len(raw), BLOCK):
        part = slice(start, start + BLOCK)
        x = to_f32(raw[part], row.dtype)
        if added is not None:
            x = apply(x, added[part])
        out[part] = round_to(
            x, dtype, persona.output.rounding, start=start, seed=persona.output.seed, name=name
        )
        if _left_the_finite(raw[part], row.dtype, out[part], dtype):
            raise IntegrityError(
                f"tensor {name!r} would hold infinite or undefined weights as {dtype}",
                hint="use smaller weights, or a wider --dtype",
            )
    write(out.data.cast("B"))
    return Finished(name, TensorRow(dtype, row.shape, ids.tensor_id(dtype, row.shape, out.data)), moved)


def _taken_whole(
    persona: Persona, operands: tuple[Operand, ...], vectors: Mapping[str, VectorSource], name: str
) -> VectorSource | None:
    """From engine 2 on: the vector whose kept tensor is written itself, because it is all that the persona adds.

    Not every such tensor is base + fp32 difference (docs/decisions/0014).
    """
    if persona.engine < 2 or not is_linear(persona.combine):
        return None
    only = sole(operands)
    return vectors[only] if only is not None and vectors[only].needs_base(name) else None


def differing(raw: Raw, dtype: str, own: BaseTensor) -> int:
    """How many elements have other bits than the base's, seen in fp32."""
    return int(np.count_nonzero(to_f32(raw, dtype).view(np.uint32) != own.f32.view(np.uint32)))


def _left_the_finite(before: Raw, dtype: str, out: Raw, written: str) -> bool:
    """Whether an element that was finite, in the base or as it was captured, no longer is."""
    strange = ~np.isfinite(to_f32(out, written))
    return bool(strange.any()) and bool(np.isfinite(to_f32(before[strange], dtype)).any())
