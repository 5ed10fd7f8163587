"""What is known of two behaviours before anything is merged: numbers from their sketches."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.registry.errors import FormatError
from pv.vecstore.forecast.sketch import Sketch

__all__ = ["FEATURES", "Sketches", "features", "log_norm_ratio"]


@dataclass(frozen=True, slots=True)
class Sketches:
    """Of one vector: its delta, and the gradient of what it was trained for, at the base; each may be missing."""

    delta: Sketch | None = None
    gradient: Sketch | None = None

    def to_json(self) -> dict[str, Any]:
        there = {"delta": self.delta, "gradient": self.gradient}
        return {name: sketch.to_json() for name, sketch in there.items() if sketch is not None}

    @staticmethod
    def of_json(document: object) -> Sketches:
        """What cannot be read was not noted: a document may be anybody's, or of another version of pv."""
        if not isinstance(document, Mapping):
            return Sketches()
        return Sketches(*(_read(document.get(name)) for name in ("delta", "gradient")))


def features(a: Sketches, b: Sketches) -> dict[str, float]:
    """Every feature that these two have, by its name. Which of the two is first makes no difference."""
    found = {}
    for name, (needs, of) in FEATURES.items():
        if all(getattr(one, part) is not None for one in (a, b) for part in needs):
            value = of(a, b)
            if math.isfinite(value):
                found[name] = value
    return found


def log_norm_ratio(a: Sketches, b: Sketches) -> float:
    """Of the longer delta to the shorter one: 0 for equal ones, infinite where one of them is nothing."""
    norms = sorted(one.delta.norm for one in (a, b) if one.delta is not None)
    return math.log(norms[1] / norms[0]) if norms[0] else math.inf


def _delta_cosine(a: Sketches, b: Sketches) -> float:
    return _cosine(a.delta, b.delta)


def _gradient_cosine(a: Sketches, b: Sketches) -> float:
    return _cosine(a.gradient, b.gradient)


def _deepest(a: Sketches, b: Sketches) -> float:
    """The largest cosine that the deltas have at one depth."""
    return max(_by_depth(a.delta, b.delta))


def _help(of: Sketches, by: Sketches) -> float:
    """What another delta does for a behaviour's objective to first order, as a share of what its own does."""
    assert of.gradient is not None and of.delta is not None and by.delta is not None
    own = of.gradient.dot(of.delta)
    return (
        of.gradient.dot(by.delta) / own if own < 0 else math.nan
    )  # its own goes down the gradient, or says nothing


def _least_help(a: Sketches, b: Sketches) -> float:
    return min(_help(a, b), _help(b, a))


def _mean_help(a: Sketches, b: Sketches) -> float:
    return (_help(a, b) + _help(b, a)) / 2


FEATURES: dict[str, tuple[tuple[str, ...], Callable[[Sketches, Sketches], float]]] = {
    "delta_cosine": (("delta",), _delta_cosine),
    "deepest_delta_cosine": (("delta",), _deepest),
    "log_norm_ratio": (("delta",), log_norm_ratio),
    "gradient_cosine": (("gradient",), _gradient_cosine),
    "least_help": (("delta", "gradient"), _least_help),
    "mean_help": (("delta", "gradient"), _mean_help),
}
"""Name → what of both sketches it needs, and how it is computed. docs/forecast.md says what they mean."""


def _cosine(a: Sketch | None, b: Sketch | None) -> float:
    assert a is not None and b is not None
    return a.cosine(b)


def _by_depth(a: Sketch | None, b: Sketch | None) -> list[float]:
    assert a is not None and b is not None
    norms = np.sqrt(a.squares * b.squares)
    found = a.bands(b)
    return [float(dot / norm) for dot, norm in zip(found, norms, strict=True) if norm] or [0.0]


def _read(document: object) -> Sketch | None:
    try:
        return None if document is None else Sketch.of_json(document)
    except FormatError:
        return None
