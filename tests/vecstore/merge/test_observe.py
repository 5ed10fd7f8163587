"""How far a step goes, where an element of it is infinite or undefined: compiled and in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest

from pv.vecstore.merge import loops
from pv.vecstore.merge.observe import step
from pv.vecstore.native.library import numpy_only


@pytest.mark.parametrize("how", [nullcontext, numpy_only])
@pytest.mark.parametrize(
    ("odd", "largest", "undefined"), [(-math.inf, math.inf, 0), (math.nan, 1.0, 1), (2.0, 2.0, 0)]
)
def test_the_largest_step(
    how: Callable[[], AbstractContextManager[None]], odd: float, largest: float, undefined: int
) -> None:
    tau = np.ones(100_000, np.float32)  # several blocks
    tau[70_000] = odd
    own = loops.values(np.zeros(tau.size, np.float32), "F32")
    with how():
        moved = step(own, [], [loops.delta(tau, "F32", whole=False, weight=1.0)])
    assert (moved.largest, moved.undefined) == (largest, undefined)
