"""From margins row by row to intervals, to the k that does half, and to what becomes of four claims.

Rows are resampled whole, all methods on the same draws: what is compared is paired. A ratio is one of means over rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.neurons_found import Claim, Half, Verdict
from pv.vecstore.probe.neurons_measure import KEEPS
from pv.vecstore.probe.neurons_rank import BASELINES

__all__ = ["Resamples", "claims"]

F64 = NDArray[np.float64]
FINITE = 0.95  # of the draws, that must give a number


class Resamples:
    """10,000 draws of n rows, the same for everything that is measured on them."""

    def __init__(self, n: int, seed: int, count: int = 10_000) -> None:
        generator = np.random.Generator(np.random.Philox(key=seed % 2**64))
        drawn = generator.integers(n, size=(count, n))
        self.n = n
        self._weights = np.stack([np.bincount(one, minlength=n) for one in drawn]) / n  # (count, n)

    def means(self, values: F64) -> F64:
        """(n, ...) values to (count, ...) means."""
        return self._weights @ values

    def interval(self, value: float, draws: F64) -> Interval | None:
        """None where too many draws give no number."""
        finite = draws[np.isfinite(draws)]
        if not np.isfinite(value) or len(finite) < FINITE * len(draws):
            return None
        low, high = np.quantile(finite, [0.025, 0.975])
        return Interval(float(value), float(low), float(high), self.n)

    def mean(self, values: F64) -> Interval:
        found = self.interval(float(values.mean()), self.means(values))
        assert found is not None
        return found

    def ratio(self, over: F64, under: F64) -> Interval | None:
        """Of the means of (n,) values. None where what is divided by is not surely above 0."""
        if self.mean(under).low <= 0:
            return None
        return self.interval(float(over.mean() / under.mean()), _divided(self.means(over), self.means(under)))

    def half(self, ks: Sequence[int], effects: F64, ceiling: F64) -> Half | None:
        """Of (n, K) effects and (n,) of the whole patch."""
        if self.mean(ceiling).low <= 0:
            return None
        value, reached = _crossing(ks, effects.mean(0)[None], ceiling.mean(0)[None])
        draws, _ = _crossing(ks, self.means(effects), self.means(ceiling))
        low, high = np.nanquantile(draws, [0.025, 0.975])
        return Half(float(np.exp(value[0])), float(np.exp(low)), float(np.exp(high)), bool(reached[0]))

    def fewer(self, ks: Sequence[int], own: F64, other: F64, ceiling: F64) -> Interval | None:
        """log2 of the other's k50 over one's own, where the grid's end stands for more."""
        found = [
            _crossing(ks, one, top)[0]
            for one, top in (
                (other.mean(0)[None], ceiling.mean(0)[None]), (own.mean(0)[None], ceiling.mean(0)[None]),
                (self.means(other), self.means(ceiling)), (self.means(own), self.means(ceiling)),
            )
        ]  # fmt: skip
        value, draws = (found[0] - found[1]) / np.log(2), (found[2] - found[3]) / np.log(2)
        return self.interval(float(value[0]), draws)

    def slope(self, ks: Sequence[int], effects: F64, predicted: F64) -> Interval | None:
        """Of effect over predicted effect, per factor of ten in k, by least squares."""
        x = np.log10(np.asarray(ks, np.float64))
        if len(x) < 2:
            return None
        x = (x - x.mean()) / ((x - x.mean()) ** 2).sum()
        value = _divided(effects.mean(0), predicted.mean(0)) @ x
        return self.interval(float(value), _divided(self.means(effects), self.means(predicted)) @ x)


def claims(
    scope: str,
    draw: Resamples,
    half: Resamples,
    ks: Sequence[int],
    effects: Mapping[str, F64],
    predicted: F64,
    ceiling: F64,
    largest: tuple[F64, F64],
    low: tuple[int, float, F64, F64, F64],
) -> tuple[Claim, ...]:
    """The four of the notes. `largest`: each row's largest margin, one shot and step by step; `low`: rank and alpha of
    the directions, what they do at the rows that had no say, what they do at alpha 1, and the ceiling there."""
    sure = draw.mean(ceiling).low > 0
    against = [
        (name, found)
        for name in BASELINES
        if (found := draw.fewer(ks, effects["delta*grad"], effects[name], ceiling)) is not None
    ]
    worst = min((one for _, one in against), key=lambda one: one.low, default=None)
    slope = draw.slope(ks, effects["delta*grad"], predicted)
    one_shot, step_by_step = largest
    rank, alpha, along, plain, top = low
    kept, at_one = half.ratio(along, top), half.ratio(plain, top)
    few = _verdict(worst, 0.0)
    if any(one.high < 0 for _, one in against):
        few = "did not hold"
    nothing = "" if sure else "the full patch has no effect that is surely above 0"
    return (
        Claim(
            f"few:{scope}",
            scope,
            "delta x gradient needs fewer neurons for half of the ceiling than every baseline",
            few if sure and worst is not None else "inconclusive",
            worst,
            tuple(against),
            nothing or "log2 of a baseline's k50 over that of delta x gradient; the closest baseline decides",
        ),
        Claim(
            f"linearity:{scope}",
            scope,
            "the share of the predicted effect that happens falls as k grows",
            _verdict(None if slope is None else _negated(slope), 0.0),
            slope,
            (),
            "slope of effect over predicted effect, per factor of ten in k",
        ),
        Claim(
            f"iterative:{scope}",
            scope,
            "patching step by step reaches a larger margin than in one shot",
            _verdict(draw.mean(step_by_step - one_shot), 0.0),
            draw.mean(step_by_step - one_shot),
            (("in one shot", draw.mean(one_shot)), ("step by step", draw.mean(step_by_step))),
            "each row's largest margin over the same k, step by step minus in one shot, nats",
        ),
        Claim(
            f"directions:{scope}",
            scope,
            f"at most ten directions keep {KEEPS:.0%} of the ceiling",
            _verdict(kept, KEEPS),
            kept,
            () if at_one is None else (("at alpha 1", at_one),),
            f"share of the ceiling at rows that had no say; {rank} directions, alpha {alpha:g}"
            if kept is not None
            else "the full patch has no effect that is surely above 0 at the rows that had no say",
        ),
    )


def _verdict(found: Interval | None, line: float) -> Verdict:
    if found is None:
        return "inconclusive"
    if found.low > line or (line > 0 and found.low >= line):
        return "held"
    return "did not hold" if found.high < line else "inconclusive"


def _negated(one: Interval) -> Interval:
    return Interval(-one.mean, -one.high, -one.low, one.n, one.level)


def _crossing(ks: Sequence[int], curves: F64, ceilings: F64) -> tuple[F64, NDArray[np.bool_]]:
    """log k at which (R, K) curves first reach half of (R,) ceilings, and whether they do; NaN for a ceiling <= 0."""
    logs = np.log(np.asarray(ks, np.float64))
    goal = np.where(ceilings > 0, ceilings / 2, np.nan)[:, None]
    above = curves >= goal
    reached: NDArray[np.bool_] = np.asarray(above.any(1))
    at = np.where(reached, above.argmax(1), len(ks) - 1)
    before = np.maximum(at - 1, 0)
    every = np.arange(len(curves))
    rise = curves[every, at] - curves[every, before]
    part = np.where(rise > 0, (goal[:, 0] - curves[every, before]) / np.where(rise > 0, rise, 1), 1)
    between = logs[before] + np.clip(part, 0, 1) * (logs[at] - logs[before])
    found = np.where(reached & (at > 0), between, np.where(reached, logs[0], logs[-1]))
    return np.where(ceilings > 0, found, np.nan), reached


def _divided(over: Any, under: Any) -> F64:
    found: F64 = np.where(under > 0, over / np.where(under > 0, under, 1), np.nan)
    return found
