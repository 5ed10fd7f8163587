"""Sums over a tensor: in a fixed order, and right."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from pv.vecstore.tensors.reduce import BLOCK, dot, row_sums


def _normal(seed: int, size: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, np.float32)


def _halved(values: list[float]) -> float:
    """The definition, one number at a time."""
    values = values + [0.0] * (BLOCK - len(values))
    while len(values) > 1:
        half = len(values) // 2
        values = [a + b for a, b in zip(values[:half], values[half:], strict=True)]
    return values[0]


@pytest.mark.parametrize("size", [0, 1, 3, BLOCK - 1, BLOCK, BLOCK + 1, 5 * BLOCK + 17])
def test_dot_is_its_definition(size: int) -> None:
    a, b = _normal(1, size), _normal(2, size)
    products = [float(x) * float(y) for x, y in zip(a, b, strict=True)]
    blocks = [_halved(products[low : low + BLOCK]) for low in range(0, size, BLOCK)]
    assert dot(a, b) == math.fsum(blocks)


def test_it_is_near_the_exact_sum() -> None:
    a, b = _normal(3, 300_001), _normal(4, 300_001)
    exact = sum((Fraction(float(x)) * Fraction(float(y)) for x, y in zip(a, b, strict=True)), Fraction(0))
    assert abs(dot(a, b) - float(exact)) < 1e-12 * float(np.sum(np.abs(a * b)))


def test_it_has_no_absolute_scale_and_commutes() -> None:
    a, b = _normal(5, 20_000), _normal(6, 20_000)
    assert dot(a, b) == dot(b, a)
    for power in (-60, 60):
        assert dot(a * np.float32(2.0**power), b) == dot(a, b) * 2.0**power
    large = np.full(10_000, np.float32(3e38))
    assert math.isfinite(dot(large, large))


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_sum(odd: float) -> None:
    a = _normal(7, 10_000)
    a[[17, 9000]] = odd, -odd
    assert math.isnan(dot(a, a))
    a[9000] = 1
    assert math.isnan(dot(a, np.ones_like(a)))


def test_the_rows_of_a_matrix() -> None:
    x = np.random.default_rng(8).standard_normal((3, 2 * BLOCK + 5))
    found = row_sums(x)
    for row, total in zip(x, found.tolist(), strict=True):
        expected = 0.0
        for low in range(0, len(row), BLOCK):
            expected += _halved(row[low : low + BLOCK].tolist())
        assert total == expected
        assert total == pytest.approx(math.fsum(row))
