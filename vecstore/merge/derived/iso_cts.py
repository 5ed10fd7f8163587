"""`iso_cts`: isotropic merging in common and task-specific subspaces (Marczak et al., ICML 2025, algorithm 2).

Of r directions (r the smaller side), four fifths are the first ones of the sum of the deltas. The rest is shared out:
of each delta, what lies outside those (by its columns), its first directions. U and V are made orthonormal, and every
singular value becomes the mean of those chosen. What is no matrix: the mean of the deltas.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge.derived.spectra import F64, mean, orthogonal, present, svd

__all__ = ["COMMON", "LEAST", "NAME", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "iso_cts"
SUMMARY = "iso_c, with directions that only one of them has"
SOURCE = "arXiv:2502.04959"
LEAST = 2
ROTATES = True
COMMON = 0.8
other = mean


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None) -> F64:
    deltas = present(deltas) or deltas[:1]
    room = room or min(deltas[0].shape)
    each = round((room - int(room * COMMON)) / len(deltas))
    common = room - each * len(deltas)
    u, sigma, v = svd(mean(deltas) * len(deltas))
    if not sigma.size:
        return np.zeros(deltas[0].shape)
    shared = u[:, :common]
    parts = [(shared, sigma[:common], v[:common])]
    for delta in deltas:
        outside = delta - shared @ (shared.T @ delta)
        if np.linalg.norm(outside) > 1e-6 * np.linalg.norm(delta):  # else there is nothing of its own
            own_u, own, own_v = svd(outside)
            parts.append((own_u[:, :each], own[:each], own_v[:each]))
    left = orthogonal(np.concatenate([part[0] for part in parts], axis=1))
    right = orthogonal(np.concatenate([part[2] for part in parts]).T)
    found: F64 = (left @ right.T) * np.concatenate([part[1] for part in parts]).mean()
    return found
