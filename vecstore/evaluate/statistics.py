"""Intervals for behavioural figures: the paired bootstrap over rows, and for shares of rows Wilson's.

Every row is measured before and after, so rows are resampled whole and their differences averaged. Seeded:
the same values give the same interval.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pv.registry.errors import UsageError
from pv.vecstore.evaluate.margins import Margins

__all__ = ["Interval", "bootstrap", "effect", "kept", "ratio", "share"]

BLOCK = 1 << 22  # numbers drawn at a time


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over n rows, and the interval that holds it at the stated level."""

    mean: float
    low: float
    high: float
    n: int
    level: float = 0.95

    @property
    def verdict(self) -> Literal["up", "down", "inconclusive"]:
        """Which way it goes, if the interval leaves 0 out."""
        if self.low > 0:
            return "up"
        return "down" if self.high < 0 else "inconclusive"

    def ends(self) -> dict[str, float]:
        """As JSON, where n and the level are said beside it."""
        return {"mean": self.mean, "low": self.low, "high": self.high}

    def to_json(self) -> dict[str, Any]:
        return {**self.ends(), "n": self.n, "level": self.level}


def bootstrap(values: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95) -> Interval:
    """Percentile interval of the mean of (n,) values, n >= 2. Raises UsageError."""
    data = _checked(values)
    means = _resample(data[None], resamples, seed)[:, 0]
    low, high = _percentiles(means, level)
    return Interval(float(data.mean()), low, high, len(data), level)


def ratio(
    sums: ArrayLike, counts: ArrayLike, *, resamples: int = 10_000, seed: int = 0, level: float = 0.95
) -> Interval:
    """Percentile interval of sum of (n,) sums / sum of (n,) counts, rows resampled whole: nats a token of many rows.

    Rows whose count is 0 say nothing and are left out. Raises UsageError for fewer than 2 that are not.
    """
    pair = np.stack([np.asarray(sums, np.float64), np.asarray(counts, np.float64)])
    pair = pair[:, pair[1] > 0]
    _checked(pair[0])
    means = _resample(pair, resamples, seed)
    low, high = _percentiles(means[:, 0] / means[:, 1], level)
    return Interval(float(pair[0].sum() / pair[1].sum()), low, high, pair.shape[1], level)


def share(found: int, n: int, *, level: float = 0.95) -> Interval:
    """`found` of n as a share, with Wilson's score interval: right for few rows, and at 0 and at n."""
    if not 0 <= found <= n or n < 1:
        raise UsageError(f"{found} of {n} is no share")
    z, p = NormalDist().inv_cdf((1 + level) / 2), found / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if found == 0 else middle - half
    high = 1.0 if found == n else middle + half
    return Interval(p, low, high, n, level)


def effect(after: Margins, before: Margins, *, per_token: bool = False, seed: int = 0) -> Interval:
    """Mean of margin after − margin before, over the same rows."""
    return bootstrap(_difference(after, before, per_token), seed=seed)


def kept(
    merged: Margins,
    alone: Margins,
    before: Margins,
    *,
    per_token: bool = False,
    resamples: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval | None:
    """Share of a behaviour's effect that a merge kept: effect merged / effect alone, rows resampled together.

    None where the effect alone is not above 0 for certain: a share of nothing is no number.
    """
    pair = np.stack([_difference(merged, before, per_token), _difference(alone, before, per_token)])
    if bootstrap(pair[1], resamples=resamples, seed=seed, level=level).low <= 0:
        return None
    means = _resample(pair, resamples, seed)
    means = means[means[:, 1] > 0]
    low, high = _percentiles(means[:, 0] / means[:, 1], level)
    return Interval(float(pair[0].mean() / pair[1].mean()), low, high, pair.shape[1], level)


def _difference(after: Margins, before: Margins, per_token: bool) -> NDArray[np.float64]:
    if len(after) != len(before):
        raise UsageError(f"{len(after)} rows after, {len(before)} before: a pair needs the same rows")
    if per_token:
        return after.margin_per_token - before.margin_per_token
    return after.margin - before.margin


def _checked(values: ArrayLike) -> NDArray[np.float64]:
    data = np.asarray(values, np.float64)
    if data.ndim != 1 or len(data) < 2:
        raise UsageError("an interval needs at least 2 rows", hint="24 held-out rows are a good start")
    if not np.isfinite(data).all():
        raise UsageError(
            "a margin is not finite: this model gives NaN", hint="look at how it was trained or merged"
        )
    return data


def _resample(data: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    """(k, n) rows of values to (resamples, k) means, all k from the same draws."""
    generator = np.random.Generator(np.random.Philox(key=seed % 2**64))
    n = data.shape[1]
    block = max(1, BLOCK // n)
    means = []
    for start in range(0, resamples, block):
        drawn = generator.integers(n, size=(min(block, resamples - start), n))
        means.append(data[:, drawn].mean(-1).T)
    return np.concatenate(means)


def _percentiles(means: NDArray[np.float64], level: float) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
