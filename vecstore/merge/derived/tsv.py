"""`tsv`: Task Singular Vectors, merged without interference (Gargiulo et al., "Task Singular Vectors: Reducing Task
Interference in Model Merging", CVPR 2025, algorithm 1).

Of each of T deltas, the first r / T singular directions, r the smaller side; side by side U, S, V; U and V replaced by
the nearest matrices with orthonormal columns; the product. What is no matrix: the mean.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge.derived.spectra import F64, mean, orthogonal, present, svd

__all__ = ["LEAST", "NAME", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "tsv"
SUMMARY = "the first singular directions of each, made orthogonal"
SOURCE = "arXiv:2412.00081"
LEAST = 2
ROTATES = True
other = mean


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None) -> F64:
    deltas = present(deltas) or deltas[:1]
    each = (room or min(deltas[0].shape)) // len(deltas)
    if each == 0:  # more deltas than directions
        return mean(deltas)
    parts = [(u[:, :each], sigma[:each], v[:each]) for u, sigma, v in map(svd, deltas)]
    u = np.concatenate([part[0] for part in parts], axis=1)
    sigma = np.concatenate([part[1] for part in parts])
    v = np.concatenate([part[2] for part in parts])
    if not sigma.size:
        return np.zeros(deltas[0].shape)
    found: F64 = (orthogonal(u) * sigma) @ orthogonal(v.T).T
    return found
