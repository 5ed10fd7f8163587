"""Low-rank factors at hand: kept side by side, and made of a lower rank without ever being multiplied out.

    sum of w_i s_i B_i A_i  =  [w_1 s_1 B_1, w_2 s_2 B_2, ...] [A_1; A_2; ...]            exact, rank r_1 + r_2 + ...

Of a sum B A (rows by R, R by columns), the best of rank r: B = Q_b R_b and A^T = Q_a R_a (QR), R_b R_a^T = U S V^T (SVD
of R by R), so B A = (Q_b U) S (Q_a V)^T; what is cut is the tail of S (Eckart and Young, 1936).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.tensors.array import F32

__all__ = ["F64", "Kept", "of_delta", "recompressed"]

F64 = NDArray[np.float64]

_BLOCK = 1 << 20  # elements widened to fp64 at a time


@dataclass(frozen=True, slots=True)
class Kept:
    """Factors (rows, r) and (r, columns) in fp32, and two sums of squares: of what was cut, and of the whole."""

    b: F32
    a: F32
    cut: float
    whole: float


def recompressed(b: F64, a: F64, rank: int) -> Kept:
    """The best `rank` of the product of (rows, R) and (R, columns): never more than R by R is decomposed."""
    left, small_b = np.linalg.qr(b)
    right, small_a = np.linalg.qr(a.T)
    u, sigma, v = np.linalg.svd(small_b @ small_a.T)
    keep = max(1, min(rank, int(np.count_nonzero(sigma > sigma[0] * 1e-15)))) if sigma[0] else 1
    root = np.sqrt(sigma[:keep])
    return Kept(
        ((left @ u[:, :keep]) * root).astype(np.float32),
        ((right @ v[:keep].T) * root).T.astype(np.float32),
        float(np.square(sigma[keep:]).sum()),
        float(np.square(sigma).sum()),
    )


def of_delta(delta: F32, rank: int) -> Kept:
    """The best `rank` of a dense (rows, columns), by the eigenvectors of the smaller Gram matrix in fp64."""
    tall = delta if delta.shape[0] >= delta.shape[1] else delta.T
    step = max(1, _BLOCK // max(1, tall.shape[1]))
    blocks = [slice(low, low + step) for low in range(0, tall.shape[0], step)]
    gram = np.zeros((tall.shape[1],) * 2)
    for at in blocks:
        part = tall[at].astype(np.float64)
        gram += part.T @ part
    values, vectors = np.linalg.eigh(gram)  # ascending
    directions = vectors[:, ::-1][:, :rank]
    root = np.sqrt(np.sqrt(np.maximum(values[::-1][:rank], 0)))
    safe = np.where(root > 0, root, 1.0)
    long = np.concatenate([(tall[at].astype(np.float64) @ directions) / safe for at in blocks])
    short = (directions * root).T
    whole = float(np.trace(gram))
    cut = 0.0  # from what is left, not from the eigenvalues: those lose their digits where little is left
    for at in blocks:
        rest = tall[at].astype(np.float64) - long[at] @ short
        cut += float(np.square(rest).sum())
    b, a = (long, short) if delta.shape[0] >= delta.shape[1] else (short.T, long.T)
    return Kept(b.astype(np.float32), a.astype(np.float32), cut, whole)
