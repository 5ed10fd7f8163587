"""What moved between two personas of one base, and what behaviours do to each other in weight space.

Measured on the deltas in fp32 before rounding, with sums in fp64. These are observations, not builds:
their last digits may differ between machines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from pv.registry.persona import Behaviour, Persona
from pv.vecstore.checkpoints.fingerprint import Progress
from pv.vecstore.merge.delta import delta
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Change", "Diff", "Pair", "diff", "interference", "place"]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


def place(name: str) -> tuple[int | None, str]:
    """Layer number (None outside the stack) and module: "model.layers.3.mlp.up_proj.weight" is 3, "mlp.up_proj"."""
    stem = name.removesuffix(".weight")
    found = _LAYER.search(stem)
    return (int(found[1]), stem[found.end() :]) if found else (None, stem.removeprefix("model."))


@dataclass(frozen=True, slots=True)
class Change:
    """How far a tensor, or a group of them, moved: squared norms of the step and of the base there."""

    where: str
    elements: int = 0
    changed: int = 0
    step2: float = 0.0
    base2: float = 0.0
    largest: float = 0.0

    @property
    def norm(self) -> float:
        return math.sqrt(self.step2)

    @property
    def relative(self) -> float:
        """The step's norm over the base's."""
        return math.sqrt(self.step2 / self.base2) if self.base2 else 0.0

    def plus(self, other: Change) -> Change:
        return Change(
            self.where,
            self.elements + other.elements,
            self.changed + other.changed,
            self.step2 + other.step2,
            self.base2 + other.base2,
            max(self.largest, other.largest),
        )


@dataclass(frozen=True, slots=True)
class Diff:
    """Every tensor that moved. Falsy if none did."""

    tensors: tuple[Change, ...]

    def __bool__(self) -> bool:
        return bool(self.tensors)

    @property
    def total(self) -> Change:
        return _sum("all", self.tensors)

    def by_layer(self) -> tuple[Change, ...]:
        def key(change: Change) -> str:
            layer, module = place(change.where)
            return f"layer {layer}" if layer is not None else module

        return _grouped(self.tensors, key)

    def by_module(self) -> tuple[Change, ...]:
        return _grouped(self.tensors, lambda change: place(change.where)[1])


@dataclass(frozen=True, slots=True)
class Pair:
    """Two behaviours: cosine of their deltas; over elements both move, the share with equal sign.

    For unrelated vectors the cosine is 0 and the sign agreement 0.5.
    """

    a: str
    b: str
    cosine: float
    sign_agreement: float
    overlap: int
    norm_a: float
    norm_b: float


@dataclass(slots=True)
class _PairSums:
    dot: float = 0.0
    a2: float = 0.0
    b2: float = 0.0
    agree: int = 0
    overlap: int = 0


def diff(
    old: Persona,
    new: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    progress: Progress | None = None,
) -> Diff:
    """Tensor by tensor, what `new` adds to the base minus what `old` adds to it."""
    changes = []
    names = _touched(vectors.values())
    for done, name in enumerate(names, 1):
        step = _minus(delta(new, vectors, name), delta(old, vectors, name))
        if step is not None and (moved := int(np.count_nonzero(step))):
            changes.append(
                Change(
                    name, step.size, moved, _square(step), _square(base.f32(name)), float(np.abs(step).max())
                )
            )
        if progress:
            progress(done, len(names))
    return Diff(tuple(changes))


def interference(
    behaviours: Mapping[str, Behaviour],
    vectors: Mapping[str, Vector],
    *,
    base_id: str,
    progress: Progress | None = None,
) -> tuple[Pair, ...]:
    """Each pair of behaviours, at their weights, in name order."""
    sums = {pair: _PairSums() for pair in combinations(sorted(behaviours), 2)}
    alone = {name: Persona(base_id, {name: behaviour}) for name, behaviour in behaviours.items()}
    names = _touched(vectors.values())
    for done, tensor in enumerate(names, 1):
        deltas = {name: delta(persona, vectors, tensor) for name, persona in alone.items()}
        squares = {name: 0.0 if d is None else _square(d) for name, d in deltas.items()}
        for (a, b), total in sums.items():
            total.a2 += squares[a]
            total.b2 += squares[b]
            x, y = deltas[a], deltas[b]
            if x is None or y is None:
                continue
            both = (x != 0) & (y != 0)
            total.dot += float(np.dot(x.astype(np.float64), y.astype(np.float64)))
            total.overlap += int(np.count_nonzero(both))
            total.agree += int(np.count_nonzero(both & (np.signbit(x) == np.signbit(y))))
        if progress:
            progress(done, len(names))
    return tuple(_pair(a, b, total) for (a, b), total in sums.items())


def _pair(a: str, b: str, total: _PairSums) -> Pair:
    norms = math.sqrt(total.a2), math.sqrt(total.b2)
    product = norms[0] * norms[1]
    return Pair(
        a,
        b,
        cosine=total.dot / product if product else 0.0,
        sign_agreement=total.agree / total.overlap if total.overlap else 0.5,
        overlap=total.overlap,
        norm_a=norms[0],
        norm_b=norms[1],
    )


def _touched(vectors: Iterable[Vector]) -> list[str]:
    return sorted({name for vector in vectors for name in vector.manifest.tensors})


def _minus(new: F32 | None, old: F32 | None) -> F32 | None:
    if old is None:
        return new
    return -old if new is None else new - old


def _square(x: F32) -> float:
    wide = x.astype(np.float64)
    return float(np.dot(wide, wide))


def _sum(where: str, changes: Iterable[Change]) -> Change:
    total = Change(where)
    for change in changes:
        total = total.plus(change)
    return total


def _grouped(changes: Iterable[Change], key: Callable[[Change], str]) -> tuple[Change, ...]:
    groups: dict[str, Change] = {}
    for change in changes:
        where = key(change)
        groups[where] = groups.get(where, Change(where)).plus(change)
    return tuple(sorted(groups.values(), key=_natural))


def _natural(change: Change) -> tuple[str, int]:
    head, _, number = change.where.rpartition(" ")
    return (head, int(number)) if number.isdigit() else (change.where, -1)
