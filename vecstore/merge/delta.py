"""What a persona adds to one tensor of its base: the plan, evaluated over tensors that are handed in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pv.registry.combine import Combine
from pv.registry.persona import Persona
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.plan import Holdings, Operand, plan, vectors_of
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import BaseTensor
from pv.vecstore.vectors.vector import Vector

__all__ = ["delta", "evaluate", "holdings", "summed", "taus", "touched"]


def evaluate(rule: Combine, operands: Sequence[Operand], taus: Mapping[str, F32]) -> F32 | None:
    """The planned sum over `taus` {vector id: (n,) fp32} → (n,) fp32 before rounding; None for nothing at all."""
    if not operands:
        return None
    return combine(rule, [(operand.weight, summed(operand, taus)) for operand in operands])


def summed(operand: Operand, taus: Mapping[str, F32]) -> F32:
    """The sum of an operand's terms, without its weight: (n,) fp32."""
    if len(operand.terms) == 1 and operand.terms[0][0] == 1:
        return taus[operand.terms[0][1]]
    return scaled_sum([(coefficient, taus[vector]) for coefficient, vector in operand.terms])


def taus(
    operands: Sequence[Operand], vectors: Mapping[str, Vector], name: str, base: BaseTensor | None = None
) -> dict[str, F32]:
    """tau of tensor `name` of every vector that the operands need: each decoded once, the base read once."""
    needed = vectors_of(operands)
    if base is None:
        held = next((vectors[v] for v in needed if vectors[v].needs_base(name)), None)
        base = held.base.tensor(name) if held else None
    return {vector: vectors[vector].tau(name, base) for vector in needed}


def delta(
    persona: Persona, vectors: Mapping[str, Vector], name: str, base: BaseTensor | None = None
) -> F32 | None:
    """Plan, decode and evaluate: what `persona` adds to tensor `name`. `base`, where it has been read already."""
    operands = plan(persona, holdings(vectors), name)
    return evaluate(persona.combine, operands, taus(operands, vectors, name, base))


def holdings(vectors: Mapping[str, Vector]) -> Holdings:
    return {vector_id: vector.manifest.tensors.keys() for vector_id, vector in vectors.items()}


def touched(vectors: Iterable[Vector]) -> list[str]:
    """Every tensor that some vector has a say in, sorted."""
    return sorted({name for vector in vectors for name in vector.manifest.tensors})
