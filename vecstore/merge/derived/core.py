"""Core space: what adapters do, between the directions that they have, small enough to decompose.

    B_i A_i = Q_b (Q_b^T B_i A_i Q_a) Q_a^T       Q_b, Q_a: orthonormal bases of all B side by side, of all A^T

A method that is the same in any orthonormal basis gives of the cores what it gives of the products, exactly, and the
result has factors again ("Accurate and Efficient Low-Rank Model Merging in Core Space", arXiv:2509.17786).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pv.vecstore.merge.derived.spectra import F64, svd
from pv.vecstore.tensors.array import Array
from pv.vecstore.tensors.formats import to_f32

__all__ = ["Core", "as_f32", "f64"]


@dataclass(frozen=True, slots=True)
class Core:
    """Bases (rows, k) and (columns, l), and between them the core (k, l) of each adapter."""

    left: F64
    right: F64
    cores: Mapping[str, F64]

    @staticmethod
    def of(adapters: Mapping[str, tuple[F64, F64]]) -> Core:
        """Of factors (rows, r) and (r, columns), by name."""
        left, _ = np.linalg.qr(np.concatenate([b for b, _ in adapters.values()], axis=1))
        right, _ = np.linalg.qr(np.concatenate([a for _, a in adapters.values()]).T)
        return Core(left, right, {v: (left.T @ b) @ (a @ right) for v, (b, a) in adapters.items()})

    def sum(self, terms: Iterable[tuple[float, str]]) -> F64:
        """The core of a sum; what adapts other tensors only adds nothing."""
        total = np.zeros((self.left.shape[1], self.right.shape[1]))
        for share, name in terms:
            if name in self.cores:
                total += share * self.cores[name]
        return total

    def factors(self, core: F64) -> tuple[F64, F64]:
        """(rows, r) and (r, columns) of what has this core; of nothing, rank 1 of zeros."""
        u, sigma, v = svd(core)
        if not sigma.size:
            return np.zeros((len(self.left), 1)), np.zeros((1, len(self.right)))
        root = np.sqrt(sigma)
        return self.left @ (u * root), (v.T * root).T @ self.right.T


def f64(array: Array) -> F64:
    return to_f32(array.raw, array.dtype).astype(np.float64).reshape(array.shape)


def as_f32(values: F64) -> Array:
    kept = np.ascontiguousarray(values.astype(np.float32))
    return Array("F32", kept.shape, kept.reshape(-1).view("<u4"))
