"""From features to shares that are kept: a table of coefficients, and what it was measured on.

The table in the package is written by `python -m benchmarks forecast`; another one may be given in its place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pv.registry import canonical
from pv.registry.combine import json_number
from pv.registry.errors import FormatError
from pv.vecstore.forecast.features import FEATURES

__all__ = [
    "TARGETS",
    "Calibration",
    "Model",
    "Predicted",
    "read_calibration",
    "standard",
    "write_calibration",
]

TARGETS = ("mean", "least")
"""Of the two shares that two behaviours keep: their mean, and the lower one."""
BEYOND = 0.1  # how far outside what was measured a feature may lie, as a part of its range
_TABLE = Path(__file__).with_name("calibration.json")


@dataclass(frozen=True, slots=True)
class Predicted:
    """A share that is kept, and the interval that held as large a part of the measured ones as `level` says."""

    kept: float
    low: float
    high: float
    level: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Model:
    """kept = intercept + sum of coefficient * feature, plus from `errors[0]` to `errors[1]`: quantiles of what was
    left when each measured pair was predicted from others. `spearman` (value, low, high) is how well those ranked."""

    intercept: float
    coefficients: Mapping[str, float]
    errors: tuple[float, float]
    spearman: tuple[float, float, float]

    def predict(self, features: Mapping[str, float], level: float) -> Predicted:
        kept = self.intercept + sum(c * features[name] for name, c in self.coefficients.items())
        return Predicted(kept, kept + self.errors[0], kept + self.errors[1], level)

    def to_json(self) -> dict[str, Any]:
        return {
            "intercept": self.intercept, "coefficients": dict(self.coefficients),
            "errors": list(self.errors), "spearman": list(self.spearman),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Calibration:
    """`models` by target. `ranges` are those of features among the measured pairs, `norms` that of deltas; `shapes`
    says of which model the base was, `learn` what was trained on; `baseline` is how the plain cosine ranked."""

    on: str
    shapes: str
    learn: str
    pairs: int
    level: float
    models: Mapping[str, Model]
    ranges: Mapping[str, tuple[float, float]]
    norms: tuple[float, float]
    baseline: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)

    @property
    def features(self) -> tuple[str, ...]:
        """All that the models need."""
        return tuple(sorted({name for model in self.models.values() for name in model.coefficients}))

    def outside(self, features: Mapping[str, float]) -> str | None:
        """The first feature that is not near what was measured, in words."""
        for name, (low, high) in sorted(self.ranges.items()):
            value, room = features.get(name), BEYOND * (high - low)
            if value is not None and not low - room <= value <= high + room:
                return f"{name.replace('_', ' ')} {value:.2f} is outside what was measured, {low:.2f} to {high:.2f}"
        return None

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "on": self.on,
            "shapes": self.shapes,
            "learn": self.learn,
            "pairs": self.pairs,
            "level": self.level,
            "models": {name: model.to_json() for name, model in self.models.items()},
            "ranges": {name: list(ends) for name, ends in self.ranges.items()},
            "norms": list(self.norms),
            "baseline": {name: list(ends) for name, ends in self.baseline.items()},
        }


@cache
def standard() -> Calibration | None:
    """That of the package; None before there is one."""
    return read_calibration(_TABLE) if _TABLE.is_file() else None


def read_calibration(path: Path) -> Calibration:
    """Raises FormatError, OSError."""
    document = canonical.loads(path.read_bytes(), what=str(path))
    try:
        assert isinstance(document, dict)
        if document["schema"] != 1:
            raise FormatError(f"{path}: schema {document['schema']!r} of calibrations is not known")
        models = {
            name: Model(
                _number(one["intercept"]),
                {feature: _number(c) for feature, c in one["coefficients"].items()},
                _numbers(one["errors"], 2),  # type: ignore[arg-type]
                _numbers(one["spearman"], 3),  # type: ignore[arg-type]
            )
            for name, one in document["models"].items()
        }
        if set(models) != set(TARGETS) or not all(
            set(one.coefficients) <= FEATURES.keys() for one in models.values()
        ):
            raise ValueError("other models than mean and least, or features that are not known")
        return Calibration(
            str(document["on"]), str(document["shapes"]), str(document["learn"]), int(document["pairs"]),
            _number(document["level"]), models,
            {name: _numbers(ends, 2) for name, ends in document["ranges"].items()},  # type: ignore[misc]
            _numbers(document["norms"], 2),  # type: ignore[arg-type]
            {name: _numbers(ends, 3) for name, ends in document["baseline"].items()},  # type: ignore[misc]
        )  # fmt: skip
    except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path} is no calibration", hint="`python -m benchmarks forecast` writes one"
        ) from error


def write_calibration(path: Path, calibration: Calibration) -> None:
    document = calibration.to_json()
    path.write_text(json.dumps(_rounded(document), indent=1, sort_keys=True) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return json_number(round(value, 6)) if isinstance(value, float) else value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError("no number")
    return float(value)


def _numbers(values: Any, count: int) -> tuple[float, ...]:
    if not isinstance(values, list) or len(values) != count:
        raise ValueError(f"not {count} numbers")
    return tuple(map(_number, values))
