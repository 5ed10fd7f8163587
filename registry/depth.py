"""A factor by depth: `0:0.5,1:1` is half in the first layer, all of it in the last, and a straight line between.

A persona keeps factors by pattern of tensor names, and nothing else. So a profile is written out when it is given: one
pattern a layer, `model.layers.7.*`. What is in no layer (embeddings, the last norm, the head) has no factor from it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise

from pv.registry.errors import UsageError

__all__ = ["Depth", "layer_of", "layer_pattern", "stacks"]

MAX_FACTOR = 1e6
_LAYER = re.compile(r"((?:[^.0-9][^.]*\.)+)([0-9]{1,6})\.")
_EXAMPLE = "for example --depth 0:0.5,1:1: half of it in the first layer, all of it in the last"


@dataclass(frozen=True, slots=True)
class Depth:
    """`points` (depth, factor): depth is 0 in the first layer of a model and 1 in the last, and grows."""

    points: tuple[tuple[float, float], ...]

    @staticmethod
    def of(given: Depth | str | Mapping[float, float]) -> Depth:
        """From `0:0.5,1:1`, or {0: 0.5, 1: 1}. Raises UsageError."""
        if isinstance(given, Depth):
            return given
        pairs = _read(given) if isinstance(given, str) else list(given.items())
        points = tuple((float(at) + 0.0, float(factor) + 0.0) for at, factor in pairs)
        if not points:
            raise UsageError("a factor by depth needs a point", hint=_EXAMPLE)
        for at, factor in points:
            if not 0 <= at <= 1:
                raise UsageError(
                    f"a depth is from 0, the first layer, to 1, the last; not {at:g}", hint=_EXAMPLE
                )
            if not abs(factor) <= MAX_FACTOR:
                raise UsageError(f"a factor is a finite number up to a million, not {factor:g}")
        for (before, _), (after, _) in pairwise(points):
            if after <= before:
                raise UsageError(
                    f"depths must grow: {after:g} stands after {before:g}",
                    hint="each depth once, in order: 0:0.5,0.5:1,1:1",
                )
        return Depth(points)

    def at(self, depth: float) -> float:
        """The factor there: on the straight line between two points, and beyond the outer ones that of theirs."""
        if depth <= self.points[0][0]:
            return self.points[0][1]
        for (left, low), (right, high) in pairwise(self.points):
            if depth <= right:
                part = (depth - left) / (right - left)
                return high if part == 1 else low + (high - low) * part
        return self.points[-1][1]

    def factors(self, tensors: Iterable[str]) -> dict[str, float]:
        """{pattern of a layer: factor} for a model of these tensors. Raises UsageError for one without layers."""
        found = {
            layer_pattern(prefix, layer): self.at(layer / (count - 1))
            for prefix, count in stacks(tensors).items()
            for layer in range(count)
        }
        if not found:
            raise UsageError(
                "the tensors of this base are in no numbered layers (model.layers.0., model.layers.1., ...)",
                hint="--modules PATTERN=FACTOR sets factors by name",
            )
        return found

    def __str__(self) -> str:
        return ",".join(f"{at:.12g}:{factor:.12g}" for at, factor in self.points)


def stacks(tensors: Iterable[str]) -> dict[str, int]:
    """{`model.layers.`: how many layers}: names that are counted from 0 without a gap, and up to 1 at least."""
    numbers: dict[str, set[int]] = {}
    for name in tensors:
        if found := _LAYER.match(name):
            numbers.setdefault(found[1], set()).add(int(found[2]))
    return {
        prefix: len(layers)
        for prefix, layers in sorted(numbers.items())
        if len(layers) > 1 and layers == set(range(len(layers)))
    }


def layer_of(tensor: str, layers: Mapping[str, int]) -> tuple[int, int] | None:
    """In which layer of how many a tensor is, by what `stacks` says; None for one that is in no layer."""
    found = _LAYER.match(tensor)
    if found is None or found[1] not in layers:
        return None
    return int(found[2]), layers[found[1]]


def layer_pattern(prefix: str, layer: int) -> str:
    return f"{prefix}{layer}.*"


def _read(text: str) -> list[tuple[float, float]]:
    points = []
    for point in text.split(","):
        at, _, factor = point.partition(":")
        try:
            points.append((float(at), float(factor)))
        except ValueError:
            raise UsageError(f"{point.strip()[:40]!r} is not DEPTH:FACTOR", hint=_EXAMPLE) from None
    return points
