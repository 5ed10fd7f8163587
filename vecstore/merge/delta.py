"""The delta that a persona adds to one tensor of its base: where recipes meet the engine.

Under `add`, the weights of every term that names the same vector are summed first (exactly rounded, so
in any order), and vectors follow in order of id: adding a behaviour and adding it again with the opposite
weight leaves nothing, not even rounding. Under `ties` each behaviour is one operand, in order of the ids
of its vectors; behaviours with the same vectors follow in order of their numbers. Names order nothing.
A weight or factor of 0 is the same as absence.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from fnmatch import fnmatchcase

from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.combine import Operand, combine, scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.vector import Vector

__all__ = ["delta", "factor", "touches"]


def factor(behaviour: Behaviour, name: str) -> float:
    """The behaviour's weight on a tensor: its own, times the factor of every module pattern that matches."""
    matching = (f for pattern, f in sorted((behaviour.modules or {}).items()) if fnmatchcase(name, pattern))
    return behaviour.weight * math.prod(matching)


def touches(persona: Persona, vectors: Mapping[str, Vector], name: str) -> bool:
    """Whether any vector has a say in this tensor."""
    return any(
        factor(behaviour, name) != 0 and any(_has(vectors, term.vector, name) for term in behaviour.terms)
        for behaviour in persona.behaviours.values()
    )


def delta(persona: Persona, vectors: Mapping[str, Vector], name: str) -> F32 | None:
    """What `persona` adds to tensor `name` before rounding: flat float32, or None for nothing at all."""
    if persona.combine.method == "add":
        return _added(persona, vectors, name)
    weighted = [(factor(behaviour, name), behaviour) for behaviour in persona.behaviours.values()]
    operands = [
        Operand(weight, part)
        for weight, behaviour in sorted(weighted, key=_order)
        if weight != 0 and (part := _terms(behaviour, vectors, name)) is not None
    ]
    return combine(persona.combine, operands) if operands else None


def _added(persona: Persona, vectors: Mapping[str, Vector], name: str) -> F32 | None:
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for behaviour in persona.behaviours.values():
        weight = factor(behaviour, name)
        for term in behaviour.terms:
            if _has(vectors, term.vector, name):
                shares[term.vector].append(weight * term.coefficient)
    weights = {vector: math.fsum(parts) for vector, parts in shares.items()}
    used = [(weights[v], vectors[v].tau(name)) for v in sorted(weights) if weights[v] != 0]
    return scaled_sum(used) if used else None


def _terms(behaviour: Behaviour, vectors: Mapping[str, Vector], name: str) -> F32 | None:
    terms = [
        (term.coefficient, vectors[term.vector].tau(name))
        for term in sorted(behaviour.terms, key=lambda t: (t.vector, t.coefficient))
        if term.coefficient != 0 and _has(vectors, term.vector, name)
    ]
    return scaled_sum(terms) if terms else None


def _has(vectors: Mapping[str, Vector], vector: str, name: str) -> bool:
    return name in vectors[vector].manifest.tensors


def _order(weighted: tuple[float, Behaviour]) -> tuple[list[str], list[tuple[str, float]], float]:
    """Two behaviours that are equal in this are the same operand, so their order cannot matter."""
    weight, behaviour = weighted
    terms = sorted((term.vector, term.coefficient) for term in behaviour.terms)
    return [vector for vector, _ in terms], terms, weight
