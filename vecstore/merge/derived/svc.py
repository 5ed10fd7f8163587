"""`svc`: Singular Value Calibration (Li et al., "When Shared Knowledge Hurts: Spectral Over-Accumulation in Model
Merging", ICML 2026, algorithm 1), of the plain sum.

Of the sum D = U S V^T of K deltas: what several of them do alike in a direction u_r is in D as often as there are of
them. With a = u_r^T D, and a_i = u_r^T D_i the part of one of them,

    s_i = <a, a_i> / |a_i|^2         1: as much of it as it was by itself; 2: twice
    S_r becomes S_r * K / sum_i max(alpha, s_i)

`alpha` is the least that counts: with 1, no direction is made larger than in the sum; below 1, those are raised in
which the deltas undo each other. One that has no part in a direction (|a_i| is below `spectra.NOISE` of |a|) counts
alpha, as if it were orthogonal to the rest. What is no matrix: the sum, which the method leaves as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pv.registry.merge_methods import Option
from pv.vecstore.merge.derived.spectra import F64, NOISE, present, svd, total

__all__ = ["LEAST", "NAME", "OPTIONS", "ROTATES", "SOURCE", "SUMMARY", "matrix", "other"]

NAME = "svc"
SUMMARY = "their sum, with what several of them share scaled down"
SOURCE = "arXiv:2602.05536"
LEAST = 1
ROTATES = True
OPTIONS = (Option("alpha", 1.0, "The least that a delta counts in a direction.", above=0, most=1000),)
other = total


def matrix(deltas: Sequence[NDArray[np.floating]], room: int | None = None, *, alpha: float = 1.0) -> F64:
    deltas = present(deltas) or deltas[:1]
    u, sigma, v = svd(total(deltas))
    whole = sigma[:, None] * v  # (k, columns): a of each direction
    counts = np.zeros(len(sigma))
    for delta in deltas:
        own = u.T @ delta.astype(np.float64)
        size = np.square(own).sum(axis=1)
        there = size > NOISE**2 * np.square(sigma)
        share = np.divide((whole * own).sum(axis=1), size, out=np.zeros_like(size), where=there)
        counts += np.maximum(alpha, share)
    found: F64 = (u * (sigma * len(deltas) / counts)) @ v
    return found
