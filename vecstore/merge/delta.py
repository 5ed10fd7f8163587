"""What a persona adds to one tensor of its base: the plan, evaluated over tensors that are handed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pv.registry.combine import Combine
from pv.registry.persona import Persona
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.plan import Holdings, Operand, plan, vectors_of
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.sources import VectorSource
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import BaseTensor

__all__ = ["delta", "evaluate", "holdings", "place", "summed", "taus", "touched"]


def evaluate(rule: Combine, operands: Sequence[Operand], taus: Mapping[str, F32], place: Place) -> F32 | None:
    """The planned sum over `taus` {vector id: (n,) fp32} → (n,) fp32 before rounding; None for nothing at all."""
    if not operands:
        return None
    shares = [Share(operand.weight, summed(operand, taus), operand.key, operand.cut) for operand in operands]
    return combine(rule, shares, place)


def place(own: BaseTensor) -> Place:
    """Where a sum is added to."""
    return Place(own.name, own.row.shape, lambda: own.f32)


def summed(operand: Operand, taus: Mapping[str, F32]) -> F32:
    """The sum of an operand's terms, without its weight: (n,) fp32; zeros if it leaves the tensor alone."""
    if not operand.terms:
        return np.zeros(next(iter(taus.values())).size, np.float32)
    if operand.as_it_is:
        return taus[operand.terms[0][1]]
    return scaled_sum([(coefficient, taus[vector]) for coefficient, vector in operand.terms])


def taus(
    operands: Sequence[Operand],
    vectors: Mapping[str, VectorSource],
    name: str,
    base: BaseTensor | None = None,
) -> dict[str, F32]:
    """tau of tensor `name` of every vector that the operands need: each decoded once, the base read once."""
    needed = vectors_of(operands)
    if base is None:
        held = next((vectors[v] for v in needed if vectors[v].needs_base(name)), None)
        base = held.base.tensor(name) if held else None
    return {vector: vectors[vector].tau(name, base) for vector in needed}


def delta(
    persona: Persona, vectors: Mapping[str, VectorSource], name: str, base: BaseTensor | None = None
) -> F32 | None:
    """Plan, decode and evaluate: what `persona` adds to tensor `name`. `base`, where it has been read already."""
    operands = plan(persona, holdings(vectors), name)
    if not operands:
        return None
    if base is None:
        its = next(iter(vectors.values())).base
        row = its.manifest.tensors[name]
        where = Place(name, row.shape, lambda: its.tensor(name).f32)  # read only if the rule looks at it
    else:
        where = place(base)
    return evaluate(persona.combine, operands, taus(operands, vectors, name, base), where)


def holdings(vectors: Mapping[str, VectorSource]) -> Holdings:
    return {vector_id: vector.manifest.tensors.keys() for vector_id, vector in vectors.items()}


def touched(vectors: Iterable[VectorSource]) -> list[str]:
    """Every tensor that some vector has a say in, sorted."""
    return sorted({name for vector in vectors for name in vector.manifest.tensors})
