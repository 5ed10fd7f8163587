"""`iso_c`: isotropic merging in the common subspace (Marczak et al., "No Task Left Behind: Isotropic Model Merging with
Common and Task-Specific Subspaces", ICML 2025, algorithm 1).

Of the sum of the deltas, U S V^T: every singular value becomes their mean. What is no matrix: the mean of the deltas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge.derived.spectra import F64, mean, svd

__all__ = ["LEAST", "NAME", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "iso_c"
SUMMARY = "their sum, with all singular values made equal"
SOURCE = "arXiv:2502.04959"
LEAST = 1
ROTATES = True
other = mean


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None) -> F64:
    u, sigma, v = svd(mean(deltas) * len(deltas))
    found: F64 = (u @ v) * (sigma.mean() if sigma.size else 0.0)
    return found
