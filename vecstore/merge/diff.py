"""What moved between two personas of one base: by tensor, layer and module.

Measured on the deltas in fp32 before rounding, with sums in fp64. These are observations, not builds:
their last digits may differ between machines.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.registry.persona import Persona
from pv.vecstore.merge.delta import evaluate, holdings, taus
from pv.vecstore.merge.plan import plan
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["Change", "WeightDiff", "place", "square", "touched", "weight_diff"]

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

    def to_json(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "elements": self.elements,
            "changed": self.changed,
            "step": self.norm,
            "relative": self.relative,
            "largest": self.largest,
        }

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
            float(np.maximum(self.largest, other.largest)),  # NaN stays NaN
        )


@dataclass(frozen=True, slots=True)
class WeightDiff:
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


def weight_diff(
    old: Persona,
    new: Persona,
    base: Base,
    vectors: Mapping[str, Vector],
    *,
    progress: Progress | None = None,
) -> WeightDiff:
    """Tensor by tensor, what `new` adds to the base minus what `old` adds to it."""
    changes = []
    held, names = holdings(vectors), touched(vectors.values())
    for done, name in enumerate(names, 1):
        plans = plan(old, held, name), plan(new, held, name)
        own = base.tensor(name) if any(plans) else None
        decoded = taus([*plans[0], *plans[1]], vectors, name, own)
        before, after = evaluate(old.combine, plans[0], decoded), evaluate(new.combine, plans[1], decoded)
        step = _minus(after, before)
        if own is not None and step is not None and (moved := int(np.count_nonzero(step))):
            largest = float(np.abs(step).max())
            changes.append(Change(name, step.size, moved, square(step), square(own.f32), largest))
        if progress:
            progress(done, len(names))
    return WeightDiff(tuple(changes))


def touched(vectors: Iterable[Vector]) -> list[str]:
    """Every tensor that some vector has a say in, sorted."""
    return sorted({name for vector in vectors for name in vector.manifest.tensors})


def _minus(new: F32 | None, old: F32 | None) -> F32 | None:
    if old is None:
        return new
    return -old if new is None else new - old


def square(x: F32) -> float:
    """The sum of squares, in fp64."""
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
