"""`sce`: select where the deltas vary most, calculate weights from their energy, erase minority signs.

Wan et al., "FuseChat", 2024, section 3.2 (SCE). With dᵢ = wᵢ·δᵢ, in each tensor:

    select      the k = max(1, ⌊select_topk·n⌋) elements whose variance over the behaviours is largest, of equal ones
                the first; all of them at 1, or if there is one behaviour
    calculate   eᵢ = Σ dᵢ² over what was selected, and ωᵢ = eᵢ / Σ e
    erase       at each place, what does not have the sign of Σ dᵢ (+ where that is 0)
    result      Σ ω·d / Σ ω over what is left

The standard deviation that is ranked is worked out in fp64 and rounded to fp32; ω in 40 digits, rounded to fp32 once.
No smallest energy: mergekit's `sce` is this where the mean squares sum to 1e-6 or more, and takes equal weights below.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import IntegrityError
from pv.vecstore.merge.selection import largest
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.merge.weights import present
from pv.vecstore.tensors.arithmetic import BLOCK, common_size, scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.reduce import dot
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["GIVEN_ALL", "LINEAR", "NAME", "check_weight", "combine"]

NAME = "sce"
LINEAR = False
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Each behaviour's share of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    there = present(shares)
    size = common_size([share.delta for share in shares])
    if not there:
        return np.zeros(size, np.float32)
    deltas = [scaled_sum([(share.weight, share.delta)]) for share in there]
    k = max(1, int(float(options["select_topk"]) * size))
    if len(deltas) > 1 and k < size:
        cut_at = largest(spread := _spread(deltas), k)
        for low, high in _blocks(size):
            keep = cut_at.keeps(spread, low, high - low)
            for delta in deltas:
                np.copyto(delta[low:high], np.float32(0), where=~keep)
    return _agreeing(deltas, _energies(deltas, place))


def _spread(deltas: Sequence[F32]) -> F32:
    """The standard deviation over the behaviours, (n,) fp32."""
    out = np.empty(deltas[0].size, np.float32)
    with np.errstate(all="ignore"):
        for low, high in _blocks(out.size):
            mean = _fold(delta[low:high].astype(np.float64) for delta in deltas) / len(deltas)
            squares = _fold(np.square(delta[low:high] - mean) for delta in deltas)
            out[low:high] = np.sqrt(squares)
    return out


def _fold(parts: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _energies(deltas: Sequence[F32], place: Place) -> list[np.float32]:
    squares = [Decimal(dot(delta, delta)) for delta in deltas]
    if any(square.is_nan() for square in squares):
        raise IntegrityError(
            f"tensor {place.name!r} holds infinite or undefined numbers, which have no energy",
            hint="combine with add, which leaves them where they are: `pv combine add`",
        )
    with localcontext(EXACT):
        total = sum(squares, Decimal(0)) or Decimal(1)
        return [np.float32(float(square / total)) for square in squares]


def _agreeing(deltas: Sequence[F32], energies: Sequence[np.float32]) -> F32:
    zero = np.float32(0)
    out = np.zeros(deltas[0].size, np.float32)
    with np.errstate(all="ignore"):
        for low, high in _blocks(out.size):
            parts = [delta[low:high] for delta in deltas]
            ballot = np.zeros(high - low, np.float32)
            for part in parts:
                np.add(ballot, part, out=ballot)
            positive = ballot >= 0
            divisor = np.zeros(high - low, np.float32)
            total = out[low:high]
            for part, energy in zip(parts, energies, strict=True):
                agrees = np.where(positive, part > 0, part < 0)
                np.add(total, np.where(agrees, np.multiply(part, energy), zero), out=total)
                np.add(divisor, np.where(agrees, energy, zero), out=divisor)
            np.divide(total, np.where(divisor == 0, np.float32(1), divisor), out=total)
    return out


def _blocks(size: int) -> Iterator[tuple[int, int]]:
    return ((low, min(low + BLOCK, size)) for low in range(0, size, BLOCK))
