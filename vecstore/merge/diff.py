"""What moved between two personas of one base: by tensor, layer and module. `compare` measures it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pv.vecstore.merge.module_class import CLASSES, module_class

__all__ = ["Movement", "WeightDiff", "place"]

_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def place(name: str) -> tuple[int | None, str]:
    """Layer number (None outside the stack) and module: "model.layers.3.mlp.up_proj.weight" is 3, "mlp.up_proj"."""
    stem = name.removesuffix(".weight")
    found = _LAYER.search(stem)
    return (int(found[1]), stem[found.end() :]) if found else (None, stem.removeprefix("model."))


@dataclass(frozen=True, slots=True)
class Movement:
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

    def plus(self, other: Movement) -> Movement:
        return Movement(
            self.where,
            self.elements + other.elements,
            self.changed + other.changed,
            self.step2 + other.step2,
            self.base2 + other.base2,
            max(self.largest, other.largest, key=_nan_last),
        )


@dataclass(frozen=True, slots=True)
class WeightDiff:
    """Every tensor that moved. Falsy if none did."""

    tensors: tuple[Movement, ...]

    def __bool__(self) -> bool:
        return bool(self.tensors)

    @property
    def total(self) -> Movement:
        return _sum("all", self.tensors)

    def by_layer(self) -> tuple[Movement, ...]:
        def key(change: Movement) -> str:
            layer, module = place(change.where)
            return f"layer {layer}" if layer is not None else module

        return _grouped(self.tensors, key)

    def by_module(self) -> tuple[Movement, ...]:
        return _grouped(self.tensors, lambda change: place(change.where)[1])

    def by_class(self) -> tuple[Movement, ...]:
        """In the order of CLASSES."""
        found = _grouped(self.tensors, lambda change: module_class(change.where))
        return tuple(sorted(found, key=lambda one: CLASSES.index(one.where)))

    def cells(self) -> dict[tuple[int | None, str], Movement]:
        """By layer and module: the cells of a heat map. A weight and its bias are one; so are a layer's experts."""
        groups: dict[tuple[int | None, str], Movement] = {}
        for change in self.tensors:
            layer, module = place(change.where)
            key = layer, _NUMBER.sub("*", module.removesuffix(".bias"))
            groups[key] = groups.get(key, Movement(key[1])).plus(change)
        return groups

    def largest(self, count: int) -> tuple[Movement, ...]:
        """The tensors that moved furthest, by the norm of their change."""
        moved = (change for change in self.tensors if change.changed)
        return tuple(sorted(moved, key=lambda change: (-change.norm, change.where))[:count])


def _nan_last(number: float) -> tuple[bool, float]:
    return math.isnan(number), number


def _sum(where: str, changes: Iterable[Movement]) -> Movement:
    total = Movement(where)
    for change in changes:
        total = total.plus(change)
    return total


def _grouped(changes: Iterable[Movement], key: Callable[[Movement], str]) -> tuple[Movement, ...]:
    groups: dict[str, Movement] = {}
    for change in changes:
        where = key(change)
        groups[where] = groups.get(where, Movement(where)).plus(change)
    return tuple(sorted(groups.values(), key=_natural))


def _natural(change: Movement) -> tuple[str, int]:
    head, _, number = change.where.rpartition(" ")
    return (head, int(number)) if number.isdigit() else (change.where, -1)
