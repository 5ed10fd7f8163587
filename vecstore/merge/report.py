"""The interference report: what the behaviours of a persona do to each other in weight space, before anything is built.

One pass over the tensors; each vector is decoded once, and each tensor of the base read once. Measured on the deltas
in fp32 before rounding, each at its weight, with sums in fp64: observations, whose last digits may differ between
machines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.combine import Combine
from pv.registry.persona import Persona
from pv.vecstore.merge import loops, observe
from pv.vecstore.merge.delta import evaluate, holdings, place, summed, taus, touched
from pv.vecstore.merge.methods import is_linear
from pv.vecstore.merge.model_trim import settle
from pv.vecstore.merge.module_class import CLASSES, module_class
from pv.vecstore.merge.plan import Operand, alone, plan
from pv.vecstore.merge.selection import Trim, known_trim, largest
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["BehaviourFigures", "ClassFigures", "Interference", "PairFigures", "TrimFigures", "interference"]

BLOCK = 1 << 13  # elements looked at at a time: in fp64 they stay in the cache
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
DRAWN = ("dare", "della")  # their density is the chance to be kept: what it keeps is not known before


@dataclass(frozen=True, slots=True)
class BehaviourFigures:
    """`norm` is that of its delta, at its weight; `share` its part of the sum of squared norms."""

    name: str
    norm: float
    share: float
    moved: int

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "norm": self.norm, "share": self.share, "moved": self.moved}


@dataclass(frozen=True, slots=True)
class PairFigures:
    """`overlap`: of the elements that either moves, the share that both move. `conflict`: of those, the share with
    opposite signs. Of unrelated deltas the cosine is 0 and the conflict 0.5."""

    a: str
    b: str
    cosine: float
    overlap: float
    conflict: float
    both: int
    norm_a: float
    norm_b: float

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "cosine": self.cosine,
            "overlap": self.overlap,
            "conflict": self.conflict,
            "both": self.both,
        }


@dataclass(frozen=True, slots=True)
class TrimFigures:
    """What keeping the largest of each tensor leaves: shares of the elements that move, and of their squared norm."""

    elements: float
    norm2: float

    def to_json(self) -> dict[str, Any]:
        return {"elements": self.elements, "norm2": self.norm2}


@dataclass(frozen=True, slots=True)
class ClassFigures:
    """One class of modules: the norms of what is added there, and of the base. `trim` if the rule trims."""

    where: str
    total: float
    base: float
    trim: TrimFigures | None

    def to_json(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "total": self.total,
            "relative": self.total / self.base if self.base else 0.0,
            "trim": None if self.trim is None else self.trim.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Interference:
    """`total` is the norm of what the rule adds to the base, `sum` that of the plain sum of the deltas.

    `trims` is what is trimmed to `density` at once: a tensor, or the model.
    """

    method: str
    density: float | None
    trims: str | None
    behaviours: tuple[BehaviourFigures, ...]
    pairs: tuple[PairFigures, ...]
    classes: tuple[ClassFigures, ...]
    total: float
    sum: float
    base: float

    @property
    def largest(self) -> float:
        """The norm of the largest behaviour."""
        return max((one.norm for one in self.behaviours), default=0.0)

    @property
    def root_sum_square(self) -> float:
        """What the sum would be if all were unrelated."""
        return math.hypot(*(one.norm for one in self.behaviours))

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "density": self.density,
            "trims": self.trims,
            "behaviours": [one.to_json() for one in self.behaviours],
            "pairs": [one.to_json() for one in self.pairs],
            "classes": [one.to_json() for one in self.classes],
            "total": self.total,
            "sum": self.sum,
            "largest": self.largest,
            "root_sum_square": self.root_sum_square,
            "relative": self.total / self.base if self.base else 0.0,
        }


def interference(
    persona: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    threads: int = 1,
    progress: Progress | None = None,
) -> Interference:
    """Measure the behaviours of a persona against each other. Raises CorruptPack, BaseMismatch."""
    names = sorted(name for name, behaviour in persona.behaviours.items() if behaviour.weight != 0)
    persona = settle(persona, base, vectors, threads=threads)
    held, tensors = holdings(vectors), touched(vectors.values())
    density = _density(persona.combine)

    def look(tensor: str) -> tuple[str, _Sums | None]:
        there = {name: one for name, one in sorted(alone(persona, held, tensor).items()) if name in names}
        planned = plan(persona, held, tensor)
        if not there:
            return tensor, None
        own = base.tensor(tensor)
        decoded = taus([*planned, *there.values()], vectors, tensor, own)
        rows = [summed(one, decoded) for one in there.values()]
        at = [names.index(name) for name in there]
        trims = [
            None if density is None else _trim(row, one, density)
            for row, one in zip(rows, there.values(), strict=True)
        ]
        found = _sums(rows, [one.weight for one in there.values()], at, len(names), trims)
        found.base2 = _square(own.f32)
        if not is_linear(persona.combine):
            found.total2 = _square(evaluate(persona.combine, planned, decoded, place(own)))
        return tensor, found

    whole = _Sums.none(len(names))
    classes: dict[str, _Sums] = {}
    for done, (tensor, found) in enumerate(ordered_map(look, tensors, threads=threads), 1):
        if found is not None:
            whole.add(found)
            classes.setdefault(module_class(tensor), _Sums.none(len(names))).add(found)
        if progress:
            progress(done, len(tensors))
    return _drawn(names, persona.combine, density, whole, classes)


def _trim(row: F32, one: Operand, density: float) -> Trim:
    return known_trim(one.cut) if one.cut is not None else largest(row, max(1, int(density * row.size)))


def _density(rule: Combine) -> float | None:
    found = rule.options.get("density")
    return None if found is None or rule.method in DRAWN else float(found)


# Sums of one tensor, and of all


@dataclass(slots=True)
class _Sums:
    """Of n behaviours at their weights: dots (n, n); above the diagonal of `both` and `against`, elements."""

    dot: F64
    both: I64
    against: I64
    moved: I64  # (n,)
    kept: I64  # (n,): of those, by the trim
    kept2: F64  # (n,): their squared norm
    total2: float | None = None  # of what the rule adds; None: it is the sum
    base2: float = 0.0

    @staticmethod
    def none(n: int) -> _Sums:
        def counts(*shape: int) -> I64:
            return np.zeros(shape, np.int64)

        return _Sums(np.zeros((n, n)), counts(n, n), counts(n, n), counts(n), counts(n), np.zeros(n))

    def add(self, other: _Sums) -> None:
        for name in ("dot", "both", "against", "moved", "kept", "kept2"):
            mine = getattr(self, name)
            np.add(mine, getattr(other, name), out=mine)
        self.base2 += other.base2
        if other.total2 is not None:
            self.total2 = other.total2 + (self.total2 or 0.0)

    @property
    def sum2(self) -> float:
        """Of the sum of the deltas. Rounding may bring what cancels out a little below 0; NaN stays NaN."""
        return float(np.maximum(self.dot.sum(), 0.0))


def _sums(
    rows: Sequence[F32], weights: Sequence[float], at: Sequence[int], count: int, trims: Sequence[Trim | None]
) -> _Sums:
    """Of one tensor: `at` says which of `count` behaviours each row is."""
    here, n = _Sums.none(len(rows)), len(rows)
    size = rows[0].size
    pairs = list(combinations(range(n), 2))
    room = np.empty((n, BLOCK))
    with np.errstate(all="ignore"):  # what is not finite gives what is not a number
        for low in range(0, size, BLOCK):
            cut = [row[low : low + BLOCK] for row in rows]
            wide = room[:, : cut[0].size]  # (n, block)
            for into, one in zip(wide, cut, strict=True):
                into[:] = one
            here.dot += wide @ wide.T
        terms = [loops.delta(row, "F32", whole=False, weight=1) for row in rows]
        _, overlap, agree = observe.pairs(terms[0].values, terms)  # none needs the base
        here.moved = overlap.diagonal().copy()
        here.both = np.triu(overlap, 1)
        here.against = np.triu(overlap - agree, 1)
        for i, (row, trim) in enumerate(zip(rows, trims, strict=True)):
            if trim is not None:
                here.kept[i], here.kept2[i] = _trimmed(row, trim)
    for a, b in pairs:
        if weights[a] * weights[b] < 0:
            here.against[a, b] = here.both[a, b] - here.against[a, b]
    total, where = _Sums.none(count), np.ix_(at, at)
    total.dot[where] = here.dot * np.outer(weights, weights)
    total.both[where], total.against[where] = here.both, here.against
    total.moved[list(at)], total.kept[list(at)] = here.moved, here.kept
    total.kept2[list(at)] = here.kept2 * np.square(weights)
    return total


def _trimmed(row: F32, trim: Trim) -> tuple[int, float]:
    """How many of a tensor's nonzero elements are kept, and their squares."""
    count, squares = 0, 0.0
    for low in range(0, row.size, BLOCK):
        part = row[low : low + BLOCK]
        kept = part[trim.keeps(part, low)]
        count += int(np.count_nonzero(kept))
        squares += _square(kept)
    return count, squares


def _square(x: F32 | None) -> float:
    """The sum of squares in fp64, block by block."""
    found = 0.0
    with np.errstate(all="ignore"):
        for low in range(0, 0 if x is None else x.size, BLOCK):
            wide = (x if x is not None else np.empty(0))[low : low + BLOCK].astype(np.float64)
            found += float(wide @ wide)
    return found


# The report of them


def _drawn(
    names: Sequence[str],
    rule: Combine,
    density: float | None,
    whole: _Sums,
    classes: Mapping[str, _Sums],
) -> Interference:
    norms = np.sqrt(np.diag(whole.dot)).tolist()
    all2 = float(np.diag(whole.dot).sum())
    behaviours = tuple(
        BehaviourFigures(name, norm, norm**2 / all2 if all2 else 0.0, int(moved))
        for name, norm, moved in zip(names, norms, whole.moved, strict=True)
    )
    pairs = tuple(_pair(names, norms, whole, a, b) for a, b in combinations(range(len(names)), 2))
    return Interference(
        rule.method,
        density,
        None if density is None else rule.options.get("trim", "tensor"),
        behaviours,
        pairs,
        tuple(_classes(classes, density)),
        _total(whole),
        math.sqrt(whole.sum2),
        math.sqrt(whole.base2),
    )


def _total(sums: _Sums) -> float:
    return math.sqrt(sums.sum2 if sums.total2 is None else sums.total2)


def _pair(names: Sequence[str], norms: Sequence[float], whole: _Sums, a: int, b: int) -> PairFigures:
    product, both = norms[a] * norms[b], int(whole.both[a, b])
    either = int(whole.moved[a]) + int(whole.moved[b]) - both
    return PairFigures(
        names[a],
        names[b],
        cosine=float(whole.dot[a, b]) / product if product else 0.0,
        overlap=both / either if either else 0.0,
        conflict=int(whole.against[a, b]) / both if both else 0.5,
        both=both,
        norm_a=norms[a],
        norm_b=norms[b],
    )


def _classes(classes: Mapping[str, _Sums], density: float | None) -> Iterator[ClassFigures]:
    for where in (one for one in CLASSES if one in classes):
        sums = classes[where]
        moved, norm2 = int(sums.moved.sum()), float(np.diag(sums.dot).sum())
        trim = None
        if density is not None:
            trim = TrimFigures(
                int(sums.kept.sum()) / moved if moved else 1.0,
                float(sums.kept2.sum()) / norm2 if norm2 else 1.0,
            )
        yield ClassFigures(where, _total(sums), math.sqrt(sums.base2), trim)
