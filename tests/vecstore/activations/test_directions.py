"""Planted directions are found by the default, and lost by what is known to lose them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pv.registry.errors import DataError, UsageError
from pv.vecstore.activations.directions import METHODS, cosine, direction, quality


def planted(n: int = 200, d: int = 64, shift: float = 3.0, noise: float = 4.0, seed: int = 0):  # type: ignore[no-untyped-def]
    """Pairs that differ by `shift` along axis 0, and by noise four times as large as that of others along axis 1."""
    draw = np.random.default_rng(seed)
    base = draw.normal(size=(n, d))
    positive, negative = base + draw.normal(size=(n, d)) * 0.5, base + draw.normal(size=(n, d)) * 0.5
    positive[:, 0] += shift
    positive[:, 1] += noise * draw.normal(size=n)
    return positive.astype(np.float32), negative.astype(np.float32)


AXIS = np.eye(64)[0]


def test_the_default_finds_a_planted_direction_that_centred_pca_loses() -> None:
    positive, negative = planted()
    found = {method: abs(cosine(direction(positive, negative, method), AXIS)) for method in METHODS}
    assert found["mean"] >= 0.9
    assert found["logistic"] >= 0.9
    assert found["pca-centred"] < 0.3
    assert found["pca"] < found["mean"]
    assert any("disagree" in said for said in quality(positive, negative).warnings)


def test_where_pairs_agree_all_methods_but_the_centred_one_do() -> None:
    positive, negative = planted(noise=0.0)
    for method in ("mean", "pca", "logistic"):
        assert cosine(direction(positive, negative, method), AXIS) >= 0.9, method
    report = quality(positive, negative)
    assert report.warnings == ()
    assert report.agreement > 0.15 and report.halves > 0.9 and report.against == 0


@pytest.mark.parametrize("method", METHODS)
def test_length_and_sign_are_those_of_the_mean_difference_along_it(method: str) -> None:
    positive, negative = planted(noise=1.0)
    found = direction(positive, negative, method).astype(np.float64)
    mean = (positive - negative).mean(0).astype(np.float64)
    assert found @ mean >= 0
    assert found @ mean == pytest.approx(found @ found, rel=1e-4)
    swapped = direction(negative, positive, method)
    assert np.allclose(swapped, -found, atol=1e-4)


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_any_shape(n: int, height: int, width: int, seed: int) -> None:
    draw = np.random.default_rng(seed)
    positive = draw.normal(size=(n, height, width)).astype(np.float32)
    negative = draw.normal(size=(n, height, width)).astype(np.float32)
    for method in METHODS:
        found = direction(positive, negative, method)
        assert found.shape == (height, width) and found.dtype == np.float32
        assert np.isfinite(found).all()
    report = quality(positive, negative)
    assert -1 / (n - 1) - 1e-6 <= report.agreement <= 1 + 1e-6
    assert 0 < report.first_component <= 1 + 1e-6


def test_outliers_are_the_pairs_that_point_the_other_way() -> None:
    positive, negative = planted(noise=0.0, n=20)
    positive[7], negative[7] = negative[7].copy(), positive[7].copy()
    report = quality(positive, negative)
    assert report.outliers[0] == 7
    assert report.against == pytest.approx(1 / 20)


def test_bad_input() -> None:
    positive, negative = planted(n=4)
    with pytest.raises(UsageError, match="no method"):
        direction(positive, negative, "umap")
    with pytest.raises(DataError, match="do not differ"):
        direction(positive, positive)
    with pytest.raises(DataError, match="not finite"):
        direction(positive * np.nan, negative)
    with pytest.raises(DataError, match="single pair"):
        quality(positive[:1], negative[:1])
    with pytest.raises(DataError, match="no pairs"):
        direction(positive, negative[:2])
