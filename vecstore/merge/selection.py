"""The k largest of a tensor's elements by magnitude; of equal ones those that come first.

By integers: the bits of a magnitude are in the order of the values, so equal ones are cut alike everywhere, and every
NaN counts as the largest. The tensor is seen piece by piece, in up to three rounds, and nothing of it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.merge import loops
from pv.vecstore.merge.cut import ANY_NAN, EVER, Cut, magnitude
from pv.vecstore.merge.share import Piece, Tensor, Voice
from pv.vecstore.native import kernels
from pv.vecstore.native.kernels import Delta, Values
from pv.vecstore.tensors.array import F32

__all__ = [
    "ALL",
    "EVERYTHING",
    "LOW",
    "Trim",
    "count",
    "known_trim",
    "largest",
    "nth_tie",
    "taken",
    "trimmed",
    "whole",
]

ALL = 1 << 15  # counts of the upper 15 bits of a magnitude
LOW = 1 << 16


class Trim:
    """The `keep` largest magnitudes of `size`: `look` at every piece in order, then `turn`; until `done`."""

    def __init__(self, size: int, keep: int) -> None:
        self.done = keep >= size or keep <= 0
        self.cut: Cut | None = None if keep >= size else Cut(ANY_NAN, 0)  # None: it keeps everything
        self._settled = self.done  # whether the threshold is known
        self._wanted, self._prefix = keep, -1
        self._counts = np.zeros(ALL, np.uint32)
        self._at = 0

    def look(self, own: Values, one: Delta) -> None:
        if not self._settled:
            count(own, one, self._counts, None if self._prefix < 0 else self._prefix)
        elif self.cut is not None and self.cut.ties_until == 0:
            found = nth_tie(own, self.on(one), self._wanted)
            if found > 0:
                self.cut = replace(self.cut, ties_until=self._at + found)
            else:
                self._wanted += found
            self._at += own.raw.size

    def turn(self) -> None:
        """All pieces were seen."""
        if self._settled:
            self.done = True
            return
        above = np.cumsum(self._counts[::-1], dtype=np.int64)  # from the largest down
        at = int(np.searchsorted(above, self._wanted))
        bucket = len(self._counts) - 1 - at
        self._wanted -= int(above[at - 1]) if at else 0
        if self._prefix < 0:
            self._prefix, self._counts = bucket, np.zeros(LOW, np.uint32)
            return
        self._settled = True
        self.done = self._wanted == int(self._counts[bucket])  # all of the equal ones are kept
        self.cut = Cut(self._prefix << 16 | bucket, EVER if self.done else 0)

    def on(self, one: Delta) -> Delta:
        """The delta, trimmed so, as `loops.ties` takes it."""
        cut = self.cut
        threshold, until = (None, 0) if cut is None else (cut.threshold, cut.ties_until)
        return Delta(one.values, one.whole, abs(one.weight), one.weight < 0, threshold, until)

    def keeps(self, values: F32, start: int) -> NDArray[np.bool_]:
        """`Cut.keeps`, once it is `done`."""
        return np.ones(values.size, bool) if self.cut is None else self.cut.keeps(values, start)


EVERYTHING = Trim(0, 0)
"""Leaves all there is."""


def known_trim(cut: Cut) -> Trim:
    """One that has nothing to look for."""
    trim = Trim(0, 0)
    trim.cut = None if cut.threshold < 0 else cut
    return trim


def largest(values: F32, k: int) -> Trim:
    """The k largest of (n,) fp32."""
    trim, one = Trim(values.size, k), whole(values)
    while not trim.done:
        trim.look(one.values, one)
        trim.turn()
    return trim


def trimmed(
    tensor: Tensor, wanted: Sequence[tuple[int, Callable[[Piece], Delta]]], *, rows: bool = False
) -> list[Trim]:
    """For each (k, what of a piece): the k largest of that over the tensor."""
    trims = [(Trim(tensor.size, k), of) for k, of in wanted]
    while looking := [(trim, of) for trim, of in trims if not trim.done]:
        for piece in tensor.pieces(rows=rows):
            for trim, of in looking:
                one = of(piece)
                trim.look(piece.against(one), one)
        for trim, _ in looking:
            trim.turn()
    return [trim for trim, _ in trims]


def taken(voice: Voice) -> Callable[[Piece], Delta]:
    """What a behaviour adds, to be trimmed."""
    return lambda piece: piece.deltas[voice.at]


def whole(values: F32) -> Delta:
    """Numbers that are no behaviour's, to be trimmed."""
    return loops.delta(values, "F32", whole=False, weight=1)


def count(own: Values, one: Delta, counts: NDArray[np.uint32], prefix: int | None) -> None:
    if kernels.available():
        kernels.magnitudes(own, one, counts, prefix=prefix)
        return
    bits = _magnitudes(own, one)
    if prefix is None:
        found = bits >> np.uint32(16)
    else:
        found = bits[bits >> np.uint32(16) == prefix] & np.uint32(0xFFFF)
    np.add(counts, np.bincount(found, minlength=len(counts)), out=counts, casting="unsafe")


def nth_tie(own: Values, one: Delta, wanted: int) -> int:
    """The index after the `wanted`-th magnitude that equals the threshold; of fewer, minus how many there are."""
    if kernels.available():
        return kernels.nth_tie(own, one, wanted)
    equal = np.flatnonzero(_magnitudes(own, one) == one.threshold)
    return int(equal[wanted - 1]) + 1 if len(equal) >= wanted else -len(equal)


def _magnitudes(own: Values, one: Delta) -> NDArray[np.uint32]:
    return magnitude(loops.tau(one, loops.f32(own) if one.whole else np.empty(0, np.float32)))
