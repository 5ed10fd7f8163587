"""How a shift of activations lies to a direction, and to directions that mean nothing: plain arithmetic.

c_i        = s_i·v / v·v                       row i's shift in units of the direction v: what `v` times c_i adds
cosine     = mean(s)·v / (|mean(s)| |v|)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError

__all__ = ["coefficients", "cosines", "isotropic"]

F64 = NDArray[np.float64]


def coefficients(shifts: NDArray[Any], direction: NDArray[Any]) -> F64:
    """Of (n, *shape) shifts along a direction of that shape: (n,), 1 for as far as the direction is long.

    Raises UsageError for other shapes, and for a direction of length 0.
    """
    if shifts.shape[1:] != direction.shape:
        raise UsageError(
            f"a direction of shape {direction.shape} does not fit activations of shape {shifts.shape[1:]}",
            hint="the vector is of another model, or of another site",
        )
    v = direction.astype(np.float64).ravel()
    length = float(v @ v)
    if not length > 0:
        raise UsageError("a direction of length 0 points nowhere", hint="leave this site out")
    found: F64 = shifts.reshape(len(shifts), -1).astype(np.float64) @ v / length
    return found


def cosines(one: NDArray[Any], many: NDArray[Any]) -> F64:
    """Of an array with each of (k, *shape): (k,); 0 where either is 0."""
    a, b = one.astype(np.float64).ravel(), many.reshape(len(many), -1).astype(np.float64)
    norms = float(np.linalg.norm(a)) * np.linalg.norm(b, axis=1)
    found: F64 = np.divide(b @ a, norms, out=np.zeros(len(b)), where=norms > 0)
    return found


def isotropic(shape: tuple[int, ...], draws: int, seed: int = 0) -> F64:
    """(draws, *shape) directions, no way likelier than another. The same shape and seed, the same numbers."""
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal((draws, *shape))
