from __future__ import annotations

import numpy as np
import pytest

from pv.vecstore.probe.significance import benjamini_hochberg, log_normal_p


def test_p_is_even_under_the_null_and_small_far_above_it() -> None:
    random = np.random.default_rng(0)
    null = np.exp(0.4 * random.standard_normal((40, 50)) - 2)
    found = np.exp(0.4 * random.standard_normal(2000) - 2)
    p = log_normal_p(found, null)
    assert [float((p < level).mean()) for level in (0.05, 0.5, 0.9)] == pytest.approx(
        [0.05, 0.5, 0.9], abs=0.03
    )
    assert (log_normal_p(np.full(3, np.exp(-2 + 0.4 * 6)), null) < 1e-6).all()


def test_no_change_is_never_beyond_noise() -> None:
    assert log_normal_p(np.zeros(3), np.zeros((4, 3))).tolist() == [1, 1, 1]
    assert log_normal_p(np.zeros(3), np.ones((4, 3))).tolist() == [1, 1, 1]


def test_benjamini_and_hochberg_by_hand() -> None:
    # Steps of 0.05 / 5: 0.01, 0.02, 0.03, 0.04, 0.05; the largest p under its step is the third.
    assert benjamini_hochberg([0.2, 0.005, 0.029, 0.025, 0.045], 0.05).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]
    assert not benjamini_hochberg([0.2, 0.3], 0.05).any()
    assert benjamini_hochberg([], 0.05).tolist() == []


def test_false_finds_are_bounded() -> None:
    random = np.random.default_rng(1)
    shares = []
    for _ in range(200):
        p = random.random(100)
        p[:20] *= 1e-5
        found = benjamini_hochberg(p, 0.05)
        shares.append(found[20:].sum() / max(1, found.sum()))
        assert found[:20].all()
    assert np.mean(shares) <= 0.05
