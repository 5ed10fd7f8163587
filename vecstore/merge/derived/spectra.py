"""Singular values of deltas: what the spectral methods share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["F64", "NOISE", "mean", "orthogonal", "present", "svd", "total"]

F64 = NDArray[np.float64]
NOISE = 1e-6
"""Of the largest singular value: a delta in fp32 says nothing about what is below."""


def svd(delta: NDArray[np.floating]) -> tuple[F64, F64, F64]:
    """(rows, columns) → U (rows, k), sigma (k,), V^T (k, columns), of the k directions that are there."""
    u, sigma, v = np.linalg.svd(delta.astype(np.float64), full_matrices=False)
    keep = int(np.count_nonzero(sigma > NOISE * sigma[0])) if sigma.size else 0
    return u[:, :keep], sigma[:keep], v[:keep]


def orthogonal(columns: F64) -> F64:
    """The matrix with orthonormal columns that is nearest: of U = P D Q^T, P Q^T (Schönemann, 1966)."""
    p, _, q = np.linalg.svd(columns, full_matrices=False)
    found: F64 = p @ q
    return found


def present(deltas: Sequence[NDArray[np.floating]]) -> list[NDArray[np.floating]]:
    """Those that say anything."""
    return [delta for delta in deltas if delta.any()]


def mean(deltas: Sequence[NDArray[np.floating]]) -> F64:
    """The mean: what most of the spectral methods do to a tensor that is no matrix."""
    return total(deltas) / len(deltas)


def total(deltas: Sequence[NDArray[np.floating]]) -> F64:
    """The sum."""
    found = np.zeros(deltas[0].shape)
    for delta in deltas:
        found += delta
    return found
