"""Will two behaviours compose? What is predicted of a pair that is added up, each at weight 1, or why nothing is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from pv.vecstore.forecast.calibration import Calibration, Predicted
from pv.vecstore.forecast.features import FEATURES, Sketches, features

__all__ = ["Forecast", "PairForecast", "Subject", "forecast"]


@dataclass(frozen=True, slots=True)
class Subject:
    """A behaviour, by the name that was asked for. `shapes` names the shapes of its base's tensors, `learn` what of its
    rows it was trained on; `unknown` says why nothing can be predicted of it, whatever it is merged with."""

    name: str
    base: str
    shapes: str
    vector: str | None
    sketches: Sketches = field(default_factory=Sketches)
    learn: str | None = None
    unknown: str | None = None


@dataclass(frozen=True, slots=True)
class PairForecast:
    """`mean` and `least` of the two shares kept; both None where `unknown` says why. `cosine` is that of the deltas,
    estimated: the plain figure that a forecast has to beat, None without the sketches."""

    a: str
    b: str
    cosine: float | None
    mean: Predicted | None = None
    least: Predicted | None = None
    unknown: str | None = None
    features: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "mean": None if self.mean is None else self.mean.to_json(),
            "least": None if self.least is None else self.least.to_json(),
            "unknown": self.unknown,
            "cosine": self.cosine,
            "features": self.features,
        }


@dataclass(frozen=True, slots=True)
class Forecast:
    """Every two of the behaviours. `calibration` None: there is none, and nothing is predicted."""

    pairs: tuple[PairForecast, ...]
    calibration: Calibration | None

    def to_json(self) -> dict[str, Any]:
        own = self.calibration
        about = None
        if own is not None:
            about = {
                "on": own.on, "pairs": own.pairs,
                "spearman": {name: _ends(model.spearman) for name, model in own.models.items()},
                "cosine_spearman": {name: _ends(ends) for name, ends in own.baseline.items()},
            }  # fmt: skip
        return {"pairs": [pair.to_json() for pair in self.pairs], "calibration": about}


def forecast(subjects: Sequence[Subject], calibration: Calibration | None) -> Forecast:
    return Forecast(tuple(_pair(a, b, calibration) for a, b in combinations(subjects, 2)), calibration)


def _pair(a: Subject, b: Subject, calibration: Calibration | None) -> PairForecast:
    if a.base != b.base:
        return PairForecast(a.name, b.name, None, unknown="they are on different bases")
    found = features(a.sketches, b.sketches)
    cosine = found.get("delta_cosine")
    why = _why_not(a, b, found, calibration)
    if why is not None or calibration is None:
        return PairForecast(a.name, b.name, cosine, unknown=why, features=found)
    mean, least = (calibration.models[of].predict(found, calibration.level) for of in ("mean", "least"))
    return PairForecast(a.name, b.name, cosine, mean, least, features=found)


def _why_not(a: Subject, b: Subject, found: dict[str, float], calibration: Calibration | None) -> str | None:
    if a.vector is not None and a.vector == b.vector:
        return "they are the same vector"
    for one in (a, b):
        if one.unknown is not None:
            return f"{one.name}: {one.unknown}"
    if calibration is None:
        return "no calibration was measured yet"
    if a.shapes != calibration.shapes:
        return "the base is not of the model that was calibrated on"
    for one in (a, b):
        if one.learn != calibration.learn:
            return (
                f"{one.name}: trained with --learn {one.learn}, calibrated with --learn {calibration.learn}"
            )
    for one in (a, b):
        for part in ("delta", *(part for name in calibration.features for part in FEATURES[name][0])):
            if getattr(one.sketches, part) is None:
                return f"{one.name} has no sketch of its {part}"
    if not set(calibration.features) <= found.keys():
        return "one of them went up the gradient that it began with"
    norms = [one.sketches.delta.norm for one in (a, b) if one.sketches.delta is not None]
    low, high = calibration.norms
    for one, norm in zip((a, b), norms, strict=True):
        if not low <= norm <= high:
            return (
                f"{one.name}: its norm {norm:.2f} is outside what was calibrated on, {low:.2f} to {high:.2f}"
            )
    return calibration.outside(found)


def _ends(values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip(("value", "low", "high"), values, strict=True))
