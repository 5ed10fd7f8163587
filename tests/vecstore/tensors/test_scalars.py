"""sine, cosine, arc cosine and exponential without a math library, against one."""

from __future__ import annotations

import math
from decimal import Decimal, getcontext, localcontext

import numpy as np
import pytest

from pv.vecstore.tensors.exponential import exp
from pv.vecstore.tensors.scalars import EXACT, acos, cos, sin

ANGLES = [0.0, 1e-300, 1e-20, 1e-9, 1e-3, 0.1, 0.5, 1.0, math.pi / 2, 2.0, 3.0, 3.14159, math.pi]


@pytest.mark.parametrize("angle", ANGLES)
def test_sine_and_cosine(angle: float) -> None:
    assert float(sin(Decimal(angle))) == pytest.approx(math.sin(angle), rel=1e-15, abs=1e-32)
    assert float(cos(Decimal(angle))) == pytest.approx(math.cos(angle), rel=1e-15)
    with localcontext(EXACT):
        one = sin(Decimal(angle)) ** 2 + cos(Decimal(angle)) ** 2
    assert abs(one - 1) < Decimal("1e-37")


@pytest.mark.parametrize(
    "cosine", [-1.0, -0.9999999, -0.5, -1e-12, 0.0, 1e-12, 0.3, 0.7071, 0.9995, 1 - 1e-15, 1.0]
)
def test_arc_cosine(cosine: float) -> None:
    assert float(acos(Decimal(cosine))) == pytest.approx(math.acos(cosine), rel=1e-15)
    assert abs(cos(acos(Decimal(cosine))) - Decimal(cosine)) < Decimal("1e-37")


def test_a_cosine_that_rounding_left_outside() -> None:
    assert acos(Decimal("1.0000001")) == 0
    assert float(acos(Decimal("-1.0000001"))) == math.pi


def test_the_callers_context_has_no_say() -> None:
    expected = sin(Decimal(1)), cos(Decimal(1)), acos(Decimal("0.3"))
    with localcontext() as context:
        context.prec = 5
        assert (sin(Decimal(1)), cos(Decimal(1)), acos(Decimal("0.3"))) == expected
        assert getcontext().prec == 5


def test_the_exponential_of_many() -> None:
    x = np.concatenate([-np.logspace(-300, 2.86, 5000), np.linspace(-745, 0, 5000), [0.0, -1000.0, -1e300]])
    expected = np.array([math.exp(value) for value in x.tolist()])
    found = exp(x)
    np.testing.assert_allclose(found, expected, rtol=2e-15, atol=5e-324)
    assert found[-3] == 1 and found[-1] == 0 and found[-2] == 0
    assert np.isnan(exp(np.array([np.nan]))[0])
