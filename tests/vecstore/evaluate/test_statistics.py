"""Intervals: what they cover, and that pairing pays."""

from __future__ import annotations

import numpy as np
import pytest

from pv.registry.errors import UsageError
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect, kept


def of(margin: np.ndarray, tokens: float = 4.0) -> Margins:
    count = np.full(len(margin), tokens)
    return Margins(margin + 100, np.full(len(margin), 100.0), count, count)


def test_the_interval_covers_the_true_mean_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    trials = [bootstrap(random.exponential(1.0, 60), resamples=600, seed=i) for i in range(300)]
    covered = np.mean([t.low <= 1.0 <= t.high for t in trials])
    assert 0.89 <= covered <= 0.98


def test_width_is_that_of_the_standard_error() -> None:
    values = np.random.default_rng(1).normal(3.0, 2.0, 400)
    found = bootstrap(values)
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert found.n == 400
    wide = bootstrap(values, level=0.99)
    assert wide.low < found.low < found.high < wide.high


def test_seeded() -> None:
    values = np.arange(30.0) ** 1.5
    assert bootstrap(values, seed=3) == bootstrap(values, seed=3)
    assert bootstrap(values, seed=3) != bootstrap(values, seed=4)
    assert bootstrap([2.0, 2.0, 2.0]) == Interval(2.0, 2.0, 2.0, 3)


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.1, 2, "up"), (-2, -0.1, "down"), (-1, 1, "inconclusive"), (0, 1, "inconclusive")],
)
def test_verdict(low: float, high: float, verdict: str) -> None:
    found = Interval((low + high) / 2, low, high, 10)
    assert found.verdict == verdict
    assert found.to_json() == {"mean": found.mean, "low": low, "high": high, "n": 10, "level": 0.95}


def test_effect_is_paired() -> None:
    """Rows that differ wildly, moved by about the same: the difference is sure, though the means overlap."""
    random = np.random.default_rng(2)
    before = random.normal(0, 50, 30)
    after = before + random.normal(1, 0.5, 30)
    found = effect(of(after), of(before))
    assert found.verdict == "up"
    assert found.mean == pytest.approx((after - before).mean())
    assert found.high - found.low < 1
    per_token = effect(of(after), of(before), per_token=True)
    assert per_token.mean == pytest.approx(found.mean / 4)
    with pytest.raises(UsageError, match="same rows"):
        effect(of(after), of(before[:-1]))


def test_kept_is_a_ratio_of_effects_with_rows_drawn_together() -> None:
    random = np.random.default_rng(3)
    before = random.normal(0, 50, 40)
    gain = random.exponential(10, 40)
    found = kept(of(before + 0.8 * gain), of(before + gain), of(before))
    assert found is not None
    assert found.mean == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8, 0.8))  # the same share in every row
    noisy = kept(of(before + 0.8 * gain + random.normal(0, 3, 40)), of(before + gain), of(before))
    assert noisy is not None
    assert noisy.low < 0.8 < noisy.high


def test_a_share_of_nothing_is_none() -> None:
    random = np.random.default_rng(4)
    before, noise = random.normal(0, 5, 40), random.normal(0, 5, 40)
    assert kept(of(before + 1), of(before + noise - noise.mean()), of(before)) is None
    assert kept(of(before + 1), of(before - 1), of(before)) is None


@pytest.mark.parametrize("values", [[], [1.0], [1.0, float("nan")], [1.0, float("inf")], [[1.0, 2.0]]])
def test_what_has_no_interval_is_refused(values: list[float]) -> None:
    with pytest.raises(UsageError):
        bootstrap(values)
