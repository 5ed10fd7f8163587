"""Steps as small as this project can make them: rANS under models of the exponent and of a forecast.

How far a weight steps depends on its exponent; the forecast says more of it, and which way. Both are known
before the step is decoded, so together they choose the model. Contexts that behave alike share one.

    forecast   see forecast.py, or one zero byte: none
    models     one byte, how many: from 1 to 255
    classes    a block: for each exponent that occurs, in order, and each bin (one without a forecast), its model
    steps      folded, negated first where a step down is expected; see rans.py
"""

from __future__ import annotations

import numpy as np

from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs import contexts, forecast, rans
from pv.vecstore.packs.codecs.forecast import BINS, Forecast
from pv.vecstore.packs.codecs.frames import pack_block, unpack_block
from pv.vecstore.packs.codecs.ordered import fold, unfold
from pv.vecstore.tensors.array import Raw

__all__ = ["Guess", "code", "pack", "unpack"]


def pack(steps: Raw, exponent: Raw, columns: int = 0, phase: int = 0) -> bytes:
    """Pack steps modulo 2^bits, (n,), n > 0, whose reference has these exponent fields, (n,).

    They are of a matrix of `columns`, from column `phase` of a row on; 0 columns: of none.
    """
    signed = steps.view(f"<i{steps.itemsize}")
    tries: list[Forecast | None] = [None, *forecast.fit(signed, exponent, columns, phase)]
    return code(min((Guess(guess, steps, exponent) for guess in tries), key=lambda made: made.bits))


def code(best: Guess) -> bytes:
    """Steps with one forecast, or with none, to bytes."""
    classes = contexts.merge(best.counts)
    models = int(classes.max()) + 1
    steps = rans.pack(best.folded, classes[best.context].astype(np.intp), models)
    return best.head + bytes([models]) + pack_block(classes) + steps


def unpack(data: memoryview, exponent: Raw, itemsize: int) -> Raw:
    """The inverse. Raises CorruptPack if anything does not fit, is missing or is left over."""
    guess, rest = forecast.unpack(data, len(exponent))
    context, places, down = _contexts(exponent, guess)
    models = rest[0] if len(rest) else 0
    if not models:
        raise CorruptPack("a chunk has no models")
    classes, rest = unpack_block(rest[1:], places)
    if int(classes.max(initial=0)) >= models:
        raise CorruptPack("a chunk names a model that it does not have")
    steps = unfold(rans.unpack(rest, classes[context].astype(np.intp), models, itemsize))
    return _turned(steps, down)


class Guess:
    """Steps seen with a forecast: folded, with the context of each, and what that would cost."""

    def __init__(self, guess: Forecast | None, steps: Raw, exponent: Raw) -> None:
        self.head = b"\0" if guess is None else guess.pack()
        self.context, places, down = _contexts(exponent, guess)
        self.folded = fold(_turned(steps, down))
        self.counts = rans.count(rans.tokens_of(self.folded), self.context, places)
        seen = self.counts[self.counts.any(axis=1)]
        self.bits = 8 * len(self.head) + float(contexts.bits(seen).sum())


def _contexts(exponent: Raw, guess: Forecast | None) -> tuple[Raw, int, Raw | None]:
    """The context of every element, (n,); how many there are; where a step down is expected, if anything is."""
    occurs = np.bincount(exponent) > 0
    rank = (np.cumsum(occurs) - 1)[exponent]  # (n,)
    if guess is None:
        return rank, int(occurs.sum()), None
    down, bins = guess.of(exponent)
    return rank * BINS + bins, int(occurs.sum()) * BINS, down


def _turned(steps: Raw, down: Raw | None) -> Raw:
    if down is None:
        return steps
    turned: Raw = np.where(down, ~steps + steps.dtype.type(1), steps)
    return turned
