"""`della`: drop elements of each delta by lot, small ones rather than large ones, and divide each by its own chance.

Deep et al., "DELLA-Merging", 2024 (MAGPRUNE). In each row (along the last dimension) the elements are ranked by
magnitude, of equal ones the first as the larger: the one of rank r from the top, of n, is kept with probability

    p = ρ + ε - 2ε·r/(n - 1)        from ρ + ε for the largest to ρ - ε for the smallest; ρ in a row of one

and becomes δ/p, so that its mean is δ. p is rounded to fp32 once. Kept is an element whose 32 random bits, as a number,
are below ⌊p·2³²⌋; the bits belong to (`seed`, the vector, the tensor's name, the element's index), see `sparse`.
Density 1 keeps everything. Then as `elect`, `merge` and `lambda` say (`sparse`).

`density` ρ and `epsilon` ε are mergekit's (`della`, `della_linear`); the paper's ε is the whole window, so 2ε here.
mergekit does not divide by p, but scales a tensor until its L1 norm is what it was: that favours large elements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pv.vecstore.merge.cut import magnitude
from pv.vecstore.merge.methods import sparse
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "ROWS", "check_weight", "ready"]

NAME = "della"
LINEAR = False
ROWS = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Refuse a weight that the rule gives no meaning. Raises UsageError."""
    sparse.check_signs(NAME, options, weight, what)


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor."""
    density, epsilon = float(options["density"]), float(options["epsilon"])
    if density == 1 or not tensor.size:
        return sparse.merged(options, voices)
    streams = sparse.streams(NAME, options, voices, tensor)
    by_rank = _by_rank(tensor.width, density, epsilon)

    def thinned(piece: Piece, voice: Voice) -> F32:
        out, tau = np.zeros(piece.size, np.float32), piece.tau(voice)
        chances = _chances(tau, by_rank)
        with np.errstate(all="ignore"):
            for part, bits in sparse.drawn(streams[voice.at], piece):
                chance = chances[part]
                below = np.floor(np.multiply(chance, 2.0**32, dtype=np.float64))
                np.divide(tau[part], chance, out=out[part], where=bits < below)
        return out

    return sparse.merged(options, voices, thinned)


def _by_rank(width: int, density: float, epsilon: float) -> F32:
    """The probability with which an element is kept, by its rank in its row."""
    ranks = np.arange(width, dtype=np.float64)
    steps = 2 * epsilon * (ranks / (width - 1)) if width > 1 else np.full(1, epsilon)
    found: F32 = (density + epsilon - steps).astype(np.float32)
    return found


def _chances(delta: F32, by_rank: F32) -> F32:
    """The same of each element of whole rows, (n,) fp32."""
    chances = np.empty(delta.size, np.float32).reshape(-1, by_rank.size)
    for row, values in zip(chances, delta.reshape(-1, by_rank.size), strict=True):
        row[np.argsort(~magnitude(values), kind="stable")] = by_rank
    return chances.reshape(-1)
