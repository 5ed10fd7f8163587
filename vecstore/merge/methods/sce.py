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

from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, localcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import IntegrityError
from pv.vecstore.merge.selection import EVERYTHING, trimmed, whole
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.merge.steps import Step
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.reduce import Total
from pv.vecstore.tensors.scalars import EXACT

__all__ = ["GIVEN_ALL", "LINEAR", "NAME", "check_weight", "ready"]

NAME = "sce"
LINEAR = False
GIVEN_ALL = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning: it scales the delta."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Step:
    """The step for one tensor, which is looked at until what is selected is known, and once more for the energies."""
    k = max(1, int(float(options["select_topk"]) * tensor.size))
    chosen = EVERYTHING
    if len(voices) > 1 and k < tensor.size:
        (chosen,) = trimmed(tensor, [(k, lambda piece: whole(_spread(_scaled(piece, voices))))])

    def selected(piece: Piece) -> list[F32]:
        deltas = _scaled(piece, voices)
        if chosen is not EVERYTHING:
            drop = ~chosen.keeps(_spread(deltas), piece.start)
            for delta in deltas:
                np.copyto(delta, np.float32(0), where=drop)
        return deltas

    energies = _energies(selected, len(voices), tensor)
    return lambda piece: _agreeing(selected(piece), energies)


def _scaled(piece: Piece, voices: Sequence[Voice]) -> list[F32]:
    return [piece.scaled(voice) for voice in voices]


def _spread(deltas: Sequence[F32]) -> F32:
    """The standard deviation over the behaviours, (n,) fp32."""
    with np.errstate(all="ignore"):
        mean = _fold(delta.astype(np.float64) for delta in deltas) / len(deltas)
        squares = _fold(np.square(delta - mean) for delta in deltas)
        return np.sqrt(squares).astype(np.float32)


def _fold(parts: Iterator[NDArray[np.float64]]) -> NDArray[np.float64]:
    total = next(parts)
    for part in parts:
        total = total + part
    return total


def _energies(selected: Callable[[Piece], Sequence[F32]], count: int, tensor: Tensor) -> list[np.float32]:
    sums = [Total() for _ in range(count)]
    for piece in tensor.pieces():
        for total, delta in zip(sums, selected(piece), strict=True):
            total.add(delta, delta)
    squares = [Decimal(total.value) for total in sums]
    if any(square.is_nan() for square in squares):
        raise IntegrityError(
            f"tensor {tensor.name!r} holds infinite or undefined numbers, which have no energy",
            hint="combine with add, which leaves them where they are: `pv combine add`",
        )
    with localcontext(EXACT):
        all_ = sum(squares, Decimal(0)) or Decimal(1)
        return [np.float32(float(square / all_)) for square in squares]


def _agreeing(deltas: Sequence[F32], energies: Sequence[np.float32]) -> F32:
    zero = np.float32(0)
    ballot, divisor, total = np.zeros((3, deltas[0].size), np.float32)
    with np.errstate(all="ignore"):
        for delta in deltas:
            np.add(ballot, delta, out=ballot)
        positive = ballot >= 0
        for delta, energy in zip(deltas, energies, strict=True):
            agrees = np.where(positive, delta > 0, delta < 0)
            np.add(total, np.where(agrees, np.multiply(delta, energy), zero), out=total)
            np.add(divisor, np.where(agrees, energy, zero), out=divisor)
        np.divide(total, np.where(divisor == 0, np.float32(1), divisor), out=total)
    return total
