"""What a merge method makes of a tensor once it has looked at it: what is added to each of its pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pv.vecstore.merge.share import Piece, Voice
from pv.vecstore.native.kernels import Delta
from pv.vecstore.tensors.arithmetic import scaled_sum, single
from pv.vecstore.tensors.array import F32

__all__ = ["Step", "Sum", "Thinned", "nothing"]

Step = Callable[[Piece], F32]
"""A piece to what is added to it: (size,) fp32."""


Thinned = Callable[[Piece, Voice], F32]
"""What is left of a behaviour's delta in a piece."""


def nothing(piece: Piece) -> F32:
    return np.zeros(piece.size, np.float32)


@dataclass(frozen=True, slots=True)
class Sum:
    """Σ factor · δ, and before it `of_base` times the base."""

    voices: Sequence[Voice]
    factors: Sequence[float]
    of_base: float = 0.0

    def __call__(self, piece: Piece) -> F32:
        base = [(self.of_base, piece.base)] if self.of_base else []
        taus = [(factor, piece.tau(voice)) for voice, factor in zip(self.voices, self.factors, strict=True)]
        return scaled_sum([*base, *taus])

    def terms(self, piece: Piece) -> list[Delta]:
        """The same, for the loops."""
        base = [Delta(piece.own, False, _rounded(self.of_base))] if self.of_base else []
        deltas = [piece.deltas[voice.at] for voice in self.voices]
        return base + [
            Delta(one.values, one.whole, _rounded(factor))
            for one, factor in zip(deltas, self.factors, strict=True)
        ]


def _rounded(factor: float) -> float:
    return float(single(factor, "a coefficient"))
