"""Two personas of one base, and the behaviours of both, compared in one pass over the packs.

Each vector is decoded once, whatever is asked of it. Measured on the deltas in fp32 before rounding, with sums in
fp64. These are observations, not builds: their last digits may differ between machines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge import loops, observe
from pv.vecstore.merge.delta import evaluate, holdings, place, summed, touched
from pv.vecstore.merge.diff import Movement, WeightDiff
from pv.vecstore.merge.interference import Pair
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.plan import Operand, operand, plan, vectors_of
from pv.vecstore.native.kernels import Delta
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.arithmetic import single
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.vector import Vector

__all__ = ["Comparison", "apart", "compare"]

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What moved from one persona to the other, and every two of the behaviours."""

    moved: WeightDiff
    pairs: tuple[Pair, ...]


def compare(
    old: Persona,
    new: Persona,
    behaviours: Mapping[str, Behaviour],
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Comparison:
    """What `new` adds to the base minus what `old` adds to it; `behaviours` at their weights, in pairs by name.

    Raises CorruptPack, BaseMismatch.
    """
    old, new = (settle(persona, base, vectors, threads=threads) for persona in (old, new))
    names = sorted(behaviours)
    held = holdings(vectors)
    tensors = touched(vectors.values())

    def look(tensor: str) -> tuple[Movement | None, _Products]:
        plans = plan(old, held, tensor), plan(new, held, tensor)
        alone = {name: operand(behaviours[name], held, tensor) for name in names}
        there = {name: one for name, one in alone.items() if one is not None}
        looked_at = _Tensor(base.tensor(tensor), vectors, [*plans[0], *plans[1], *there.values()])
        change = None
        rules = apart((old.combine, plans[0]), (new.combine, plans[1]))
        if any(plans) and rules[0] != rules[1]:
            change = looked_at.change(rules)
        return change, looked_at.products(
            list(there.values()), [names.index(name) for name in there], len(names)
        )

    changes: list[Movement] = []
    total = _Products.none(len(names))
    for done, (change, products) in enumerate(ordered_map(look, tensors, threads=threads), 1):
        if change is not None and change.changed:
            changes.append(change)
        total.add(products)
        if progress:
            progress(done, len(tensors))
    pairs = (_pair(names, total, a, b) for a, b in combinations(range(len(names)), 2))
    return Comparison(WeightDiff(tuple(changes)), tuple(pairs))


# One tensor

Planned = tuple[Combine, tuple[Operand, ...]]


def apart(old: Planned, new: Planned) -> tuple[Planned, Planned]:
    """Both plans; of sums, without the terms that they have in common."""
    if not (is_linear(old[0]) and is_linear(new[0])):
        return old, new
    first, second = (
        tuple(one for one in mine[1] if one not in theirs[1]) for mine, theirs in ((old, new), (new, old))
    )
    return (old[0], first), (old[0], second)


class _Tensor:
    """A tensor of the base and what every vector adds to it, each decoded once."""

    def __init__(self, own: BaseTensor, vectors: Mapping[str, Vector], operands: Sequence[Operand]) -> None:
        self._own = own
        self._values = loops.values(own.raw, own.row.dtype)
        self._deltas = {vector: _delta(vectors[vector], own) for vector in vectors_of(operands)}
        self._taus: dict[str, F32] = {}

    def change(self, rules: tuple[Planned, Planned]) -> Movement:
        """What the second adds minus what the first adds."""
        before, after = (self._added(*rule) for rule in rules)
        moved = observe.step(self._values, before, after)
        largest = float("nan") if moved.undefined else moved.largest
        row = self._own.row
        return Movement(self._own.name, row.numel, moved.changed, moved.step2, moved.base2, largest)

    def products(self, operands: Sequence[Operand], where: Sequence[int], count: int) -> _Products:
        """`where` says which behaviour each operand is, of `count`."""
        total = _Products.none(count)
        if not operands:
            return total
        weights = np.array([one.weight for one in operands])
        dots, overlap, agree = observe.pairs(self._values, [self._sum(one) for one in operands])
        flipped = np.sign(weights)[:, None] * np.sign(weights)[None] < 0
        at = np.ix_(where, where)
        total.dot[at] = dots * np.outer(weights, weights)
        total.overlap[at], total.agree[at] = overlap, np.where(flipped, overlap - agree, agree)
        return total

    def _added(self, rule: Combine, operands: Sequence[Operand]) -> list[Delta]:
        """The terms of a sum; a rule that looks at whole tensors gives one."""
        if is_linear(rule):
            weights = [float(single(one.weight, "a weight")) for one in operands]
            terms = zip(operands, weights, strict=True)
            return [replace(self._sum(one), weight=weight) for one, weight in terms if weight]
        whole = evaluate(rule, operands, self._tau(operands), place(self._own))
        return [] if whole is None else [loops.delta(whole, "F32", whole=False, weight=1)]

    def _sum(self, one: Operand) -> Delta:
        """An operand without its weight."""
        if len(one.terms) == 1 and one.terms[0][0] == 1:
            return self._deltas[one.terms[0][1]]
        return loops.delta(summed(one, self._tau([one])), "F32", whole=False, weight=1)

    def _tau(self, operands: Sequence[Operand]) -> Mapping[str, F32]:
        for vector in vectors_of(operands):
            if vector not in self._taus:
                self._taus[vector] = loops.tau(self._deltas[vector], self._own.f32)
        return self._taus


def _delta(vector: Vector, own: BaseTensor) -> Delta:
    """A vector's say, whole tensor or delta, as it was kept."""
    if vector.needs_base(own.name):
        row, raw = vector.kept(own.name, own)
        return loops.delta(raw, row.dtype, whole=True, weight=1)
    return loops.delta(vector.tau(own.name, own), "F32", whole=False, weight=1)


# Behaviours against one another


@dataclass(frozen=True, slots=True)
class _Products:
    """Over every two of n behaviours, each (n, n): dot products; above the diagonal, elements both move, and alike."""

    dot: F64
    overlap: I64
    agree: I64

    @staticmethod
    def none(count: int) -> _Products:
        shape = (count, count)
        return _Products(np.zeros(shape), np.zeros(shape, np.int64), np.zeros(shape, np.int64))

    def add(self, other: _Products) -> None:
        np.add(self.dot, other.dot, out=self.dot)
        np.add(self.overlap, other.overlap, out=self.overlap)
        np.add(self.agree, other.agree, out=self.agree)


def _pair(names: Sequence[str], found: _Products, a: int, b: int) -> Pair:
    norms = float(np.sqrt(found.dot[a, a])), float(np.sqrt(found.dot[b, b]))
    product, overlap = norms[0] * norms[1], int(found.overlap[a, b])
    return Pair(
        names[a],
        names[b],
        cosine=float(found.dot[a, b]) / product if product else 0.0,
        sign_agreement=int(found.agree[a, b]) / overlap if overlap else 0.5,
        overlap=overlap,
        norm_a=norms[0],
        norm_b=norms[1],
    )
