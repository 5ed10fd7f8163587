"""Which heads changed by more than noise would change them: a null for each layer, and a bound on false finds.

A null of few draws says nothing of its far tail, so a log-normal is fitted to it: relative changes are positive and
spread over orders of magnitude. All draws and heads of a layer are one null.

Source of the bound: Benjamini and Hochberg, "Controlling the false discovery rate", J. R. Stat. Soc. B 57 (1995).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

__all__ = ["benjamini_hochberg", "log_normal_p"]

F64 = NDArray[np.float64]
FLOOR = 1e-300
LEAST_SPREAD = 1e-3  # of the logarithm: what is known of rounding is no null


def log_normal_p(found: F64, null: F64) -> F64:
    """One-sided p of (H,) changes against (draws, H) of the null, all of one layer. A change of 0 has p 1."""
    drawn = null[null > 0]
    if len(drawn) < 2:
        return np.where(found > 0, FLOOR, 1.0)
    logs = np.log(drawn)
    spread = max(float(logs.std(ddof=1)), LEAST_SPREAD) * math.sqrt(1 + 1 / len(logs))
    centre = float(logs.mean())
    with np.errstate(divide="ignore"):
        z = (np.log(found) - centre) / spread
    return np.array([1.0 if one == -math.inf else max(FLOOR, NormalDist().cdf(-one)) for one in z])


def benjamini_hochberg(p: Sequence[float] | F64, level: float) -> NDArray[np.bool_]:
    """Which of (n,) hypotheses are rejected, so that at most `level` of those are wrong on average."""
    values = np.asarray(p, np.float64)
    order = np.argsort(values, kind="stable")
    under = values[order] <= level * np.arange(1, len(values) + 1) / max(1, len(values))
    found = np.zeros(len(values), bool)
    if under.any():
        found[order[: int(np.flatnonzero(under)[-1]) + 1]] = True
    return found
