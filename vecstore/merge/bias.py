"""A bias of a build that steering is baked into: computed in fp64, and rounded once, to nearest.

To nearest, because the mean over many elements, which stochastic rounding keeps, is of no use here: each element is
wanted as near to the direction's as it can be, and the same for any seed.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pv.registry import ids
from pv.registry.errors import IntegrityError
from pv.registry.manifest import TensorRow
from pv.registry.persona import Persona
from pv.vecstore.merge.baked import F64, Baked
from pv.vecstore.merge.compute import compute, differing
from pv.vecstore.merge.folder import Finished, Write
from pv.vecstore.merge.sources import BaseSource, VectorSource
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import all_finite, to_f32
from pv.vecstore.tensors.rounding import round_to

__all__ = ["compute_baked"]


def compute_baked(
    persona: Persona,
    base: BaseSource,
    vectors: Mapping[str, VectorSource],
    baked: Baked,
    name: str,
    dtype: str,
    write: Write,
) -> Finished:
    """As `compute`, and biases as `baked` has them. Raises the same."""
    bias = baked.biases.get(name)
    if bias is None:
        return compute(persona, base, vectors, name, dtype, write)
    total = bias.constant
    if bias.through is not None:
        weight = _built(persona, base, vectors, bias.weight, dtype)
        total = total + _product(weight if bias.transposed else weight.T, bias.through)
    own = base.manifest.tensors.get(name)
    if own is not None:
        total = total + _built(persona, base, vectors, name, "F32")
    with np.errstate(over="ignore"):  # what is not finite is seen below
        raw = round_to(total.astype(np.float32), dtype, "nearest", seed=0, name=name, start=0)
    if not all_finite(raw, dtype):
        raise IntegrityError(
            f"tensor {name!r} would hold infinite or undefined weights as {dtype}",
            hint="use smaller coefficients in `pv steer`, or a wider --dtype",
        )
    data = raw.data.cast("B")
    write(data)
    row = TensorRow(dtype, raw.shape, ids.tensor_id(dtype, raw.shape, data))
    if own is None:
        return Finished(name, row, int(np.count_nonzero(raw)) or None)
    return Finished(name, row, differing(raw, dtype, np.concatenate(list(base.pieces(name))), own.dtype))


def _built(
    persona: Persona, base: BaseSource, vectors: Mapping[str, VectorSource], name: str, dtype: str
) -> F64:
    """A tensor of the build as it is written in `dtype`, whole."""
    pieces: list[bytes] = []
    made = compute(persona, base, vectors, name, dtype, lambda data: pieces.append(bytes(data)))
    raw = np.frombuffer(b"".join(pieces), storage_dtype(dtype))
    return to_f32(raw, dtype).reshape(made.row.shape).astype(np.float64)


def _product(rows: F64, through: F64) -> F64:
    """Σᵢ throughᵢ · rowsᵢ, added in order: the same bits on any machine, which a BLAS does not promise."""
    total = np.zeros(rows.shape[1])
    for i in np.flatnonzero(through):
        total += rows[i] * through[i]
    return total
