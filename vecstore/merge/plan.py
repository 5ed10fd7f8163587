"""The plan of one tensor: which vectors a persona adds to it, with which weights. No byte is read for it.

Under a linear method (`add`), the weights of every term that names the same vector are summed first (exactly
rounded, so in any order), and vectors follow in order of id: adding a behaviour and adding it again with the
opposite weight leaves nothing, not even rounding. Under any other, each behaviour is one operand, in order of
the ids of its vectors; behaviours with the same vectors follow in order of their numbers. Names order nothing.
A weight or factor of 0 is the same as absence. A method that is given all behaviours has an operand without terms for
one that leaves the tensor alone, where another does not.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.cut import Cut
from pv.vecstore.merge.methods import given_all, is_linear
from pv.vecstore.merge.model_cut import Settled
from pv.vecstore.merge.module_factors import factor
from pv.vecstore.tensors.arithmetic import single

__all__ = ["Holdings", "Operand", "alone", "operand", "plan", "sole", "vectors_of"]

Holdings = Mapping[str, Collection[str]]
"""Which tensors each vector has a say in, by vector id."""


@dataclass(frozen=True, slots=True)
class Operand:
    """`weight` times the sum of `terms`, (coefficient, vector id) in the order in which they are added.

    `cut`: what is kept of that sum, where the rule has found it over the whole model.
    """

    weight: float
    terms: tuple[tuple[float, str], ...]
    cut: Cut | None = None

    @property
    def as_it_is(self) -> bool:
        """Whether it is one vector, and no sum."""
        return len(self.terms) == 1 and self.terms[0][0] == 1

    @property
    def key(self) -> str:
        """What stands for the sum of the terms where something is drawn for it: of one vector as it is, its id."""
        match self.terms:
            case ((coefficient, vector),) if coefficient == 1:
                return vector
        return " + ".join(f"{coefficient!r} * {vector}" for coefficient, vector in self.terms)


def plan(persona: Persona, holdings: Holdings, name: str) -> tuple[Operand, ...]:
    """The operands of tensor `name`, in order; none if no vector has a say in it."""
    if is_linear(persona.combine):
        return _summed(persona, holdings, name)
    weighted = [
        (factor(behaviour, name), behaviour, _cut(persona, of, name))
        for of, behaviour in persona.behaviours.items()
    ]
    operands = tuple(
        Operand(weight, _terms(behaviour, holdings, name), cut)
        for weight, behaviour, cut in sorted(weighted, key=_order)
        if weight != 0
    )
    touching = tuple(operand for operand in operands if operand.terms)
    return operands if touching and given_all(persona.combine) else touching


def alone(persona: Persona, holdings: Holdings, name: str) -> dict[str, Operand]:
    """Each behaviour by itself on tensor `name`, if it says anything there."""
    found = {of: operand(behaviour, holdings, name) for of, behaviour in persona.behaviours.items()}
    return {of: replace(one, cut=_cut(persona, of, name)) for of, one in found.items() if one is not None}


def operand(behaviour: Behaviour, holdings: Holdings, name: str) -> Operand | None:
    """A behaviour by itself on tensor `name`; None if it says nothing there."""
    weight, terms = factor(behaviour, name), _terms(behaviour, holdings, name)
    return Operand(weight, terms) if weight != 0 and terms else None


def sole(operands: Collection[Operand]) -> str | None:
    """The one vector that operands of a linear rule add, as it is; None if there are more, or it is scaled.

    Weights count as they are computed with, in fp32: what is 0 there is absent. Raises UsageError for one beyond.
    """
    weighed = [(single(operand.weight, "a weight"), operand.terms[0][1]) for operand in operands]
    match [(weight, vector) for weight, vector in weighed if weight != 0]:
        case [(weight, vector)] if weight == 1:
            return vector
    return None


def vectors_of(operands: Collection[Operand]) -> tuple[str, ...]:
    """Ids of the vectors that the operands need, sorted, each once."""
    return tuple(sorted({vector for operand in operands for _, vector in operand.terms}))


def _summed(persona: Persona, holdings: Holdings, name: str) -> tuple[Operand, ...]:
    shares: defaultdict[str, list[float]] = defaultdict(list)
    for behaviour in persona.behaviours.values():
        weight = factor(behaviour, name)
        for term in behaviour.terms:
            if name in holdings[term.vector]:
                shares[term.vector].append(weight * term.coefficient)
    weights = {vector: math.fsum(parts) for vector, parts in shares.items()}
    return tuple(Operand(weights[v], ((1.0, v),)) for v in sorted(weights) if weights[v] != 0)


def _terms(behaviour: Behaviour, holdings: Holdings, name: str) -> tuple[tuple[float, str], ...]:
    return tuple(
        (term.coefficient, term.vector)
        for term in sorted(behaviour.terms, key=lambda t: (t.vector, t.coefficient))
        if term.coefficient != 0 and name in holdings[term.vector]
    )


def _cut(persona: Persona, behaviour: str, name: str) -> Cut | None:
    rule = persona.combine
    return rule.cuts[behaviour].at(name) if isinstance(rule, Settled) and behaviour in rule.cuts else None


def _order(
    weighted: tuple[float, Behaviour, Cut | None],
) -> tuple[list[str], list[tuple[str, float]], float, tuple[int, int]]:
    """Two behaviours that are equal in this are the same operand, so their order cannot matter."""
    weight, behaviour, cut = weighted
    terms = sorted((term.vector, term.coefficient) for term in behaviour.terms)
    kept = (0, 0) if cut is None else (cut.threshold, cut.ties_until)
    return [vector for vector, _ in terms], terms, weight, kept
