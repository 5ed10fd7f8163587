"""`lowrank:r`: the best approximation of rank r, from a singular value decomposition made once.

Parts and tau as in `lora`, with s = 1. A tensor of fewer than two dimensions, or one that two factors
would not make smaller, has the part "tau" of `float` instead.

The decomposition is in fp64, over the Gram matrix of the shorter side. The longer factor is rounded first;
the shorter one is then fitted to what the longer one has become, so the rounding of one is made up for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.registry.manifest import TensorRow
from pv.vecstore.encodings import floats, lora
from pv.vecstore.encodings.array import F32, Array
from pv.vecstore.encodings.rules import matrix
from pv.vecstore.engine.formats import to_f32
from pv.vecstore.engine.rounding import round_to

__all__ = ["NAME", "check", "encode", "tau"]

NAME = "lowrank"
F64 = NDArray[np.float64]

_BLOCK = 1 << 20  # elements widened to fp64 at a time
_NOISE = 1e-7  # of the largest singular value: below it the Gram matrix has no digits left


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    if rows.keys() == {"tau"}:
        floats.check(rows, shape)
    else:
        lora.check_factors(rows, shape)


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    return lora.tau(parts, base, shape)


def encode(tau: F32, shape: tuple[int, ...], rank: int = 64, dtype: str = "BF16") -> dict[str, Array]:
    """(n,) finite fp32 of a shape → factors of at most `rank` in `dtype` ("BF16" or "F32")."""
    if rank < 1:
        raise UsageError(f"a rank of {rank} keeps nothing", hint="lowrank:64 keeps 64 directions a tensor")
    height, width = matrix(shape)
    if len(shape) < 2 or rank * (height + width) >= height * width:
        return floats.encode(tau, shape, dtype)
    whole = tau.reshape(height, width)
    tall = whole if height >= width else whole.T
    long, short = _factors(tall, rank, dtype)  # (longer side, r), (r, shorter side)
    b, a = (long, short) if height >= width else (short.T, long.T)
    return lora.factors(_array(a, dtype), _array(b, dtype), 1.0)


def _factors(tall: F32, rank: int, dtype: str) -> tuple[F32, F32]:
    """(m, n), m >= n, to (m, r) and (r, n), already rounded to what `dtype` holds."""
    gram = np.zeros((tall.shape[1],) * 2)
    for _, block in _blocks(tall):
        gram += block.T @ block
    values, vectors = np.linalg.eigh(gram)  # ascending
    sigma = np.sqrt(np.maximum(values[::-1][:rank], 0))
    keep = max(1, int(np.count_nonzero(sigma > _NOISE * sigma[0])))
    # Both factors carry the square root of sigma, so that neither leaves the range of a narrow dtype.
    root = np.sqrt(np.where(sigma[:keep] > 0, sigma[:keep], 1))
    right = vectors[:, ::-1][:, :keep]  # (n, r)
    long = np.empty((tall.shape[0], keep), np.float32)
    for at, block in _blocks(tall):
        long[at] = _rounded(block @ right / root, dtype)

    inner = np.zeros((keep, keep))
    outer = np.zeros((keep, tall.shape[1]))
    for at, block in _blocks(tall):
        half = long[at].astype(np.float64)
        inner += half.T @ half
        outer += half.T @ block
    short = np.linalg.pinv(inner, hermitian=True) @ outer  # the least squares fit to `long`
    return long, _rounded(short, dtype)


def _blocks(tall: F32) -> Iterator[tuple[slice, F64]]:
    step = max(1, _BLOCK // max(1, tall.shape[1]))
    for low in range(0, tall.shape[0], step):
        at = slice(low, low + step)
        yield at, tall[at].astype(np.float64)


def _rounded(x: F64, dtype: str) -> F32:
    narrow = np.ascontiguousarray(x, np.float32)
    return to_f32(round_to(narrow, dtype, "nearest", seed=0, name="", start=0), dtype)


def _array(x: F32, dtype: str) -> Array:
    flat = np.ascontiguousarray(x).reshape(-1)
    return Array(dtype, x.shape, round_to(flat, dtype, "nearest", seed=0, name="", start=0))
