"""The singular values of a difference of two matrices: is it a few directions, or all of them?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.vecstore.tensors.array import F32

__all__ = ["Spectrum", "spectrum"]

SHOWN = 8
EXACT = 512  # up to so many rows or columns
SKETCH, ROUNDS = 24, 4  # directions of the sketch, and how often it is turned towards the largest


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The largest singular values of one tensor's difference. Approximate unless `exact`: never above the true ones."""

    where: str
    shape: tuple[int, int]
    values: tuple[float, ...]
    norm2: float
    exact: bool

    @property
    def stable_rank(self) -> float:
        """Σσ² / σ₁²: 1 if there is one direction only."""
        return self.norm2 / self.values[0] ** 2

    @property
    def energy(self) -> float:
        """The share of Σσ² in the values that are shown."""
        return min(1.0, math.fsum(value**2 for value in self.values) / self.norm2)

    def to_json(self) -> dict[str, Any]:
        return {
            "where": self.where,
            "shape": list(self.shape),
            "singular_values": list(self.values),
            "stable_rank": self.stable_rank,
            "energy": self.energy,
            "exact": self.exact,
        }


def spectrum(where: str, step: F32) -> Spectrum | None:
    """Of a difference (m, n); None for one that is 0, or not finite.

    Exact where m or n is small; else from a subspace of SKETCH random directions (the same in every run), multiplied
    ROUNDS times by the difference and its transpose. In fp32, scaled to a largest element of 1.
    """
    largest = float(np.abs(step).max(initial=0))
    if not 0 < largest < math.inf:
        return None
    scaled = step / np.float32(largest)
    norm2 = float(np.einsum("ij,ij->", scaled, scaled, dtype=np.float64))
    exact = min(step.shape) <= EXACT
    values = np.linalg.svd(scaled, compute_uv=False) if exact else _sketched(scaled)
    shown = tuple(float(value) * largest for value in values[:SHOWN])
    return Spectrum(where, (step.shape[0], step.shape[1]), shown, norm2 * largest**2, exact)


def _sketched(x: F32) -> F32:
    """Halko, Martinsson, Tropp 2011, algorithm 4.4: randomised subspace iteration."""
    if x.shape[0] < x.shape[1]:
        x = x.T
    start = np.random.Generator(np.random.Philox(0)).standard_normal((x.shape[1], SKETCH), np.float32)
    basis, _ = np.linalg.qr(x @ start)  # (m, SKETCH)
    for _ in range(ROUNDS):
        other, _ = np.linalg.qr(x.T @ basis)
        basis, _ = np.linalg.qr(x @ other)
    values: F32 = np.linalg.svd(basis.T @ x, compute_uv=False)
    return values
