"""How short a behaviour can be written down: the smallest encoding of its vectors that still does the same.

"The same": the whole interval of the share of the effect that is kept is at or above 95 %, on held-out rows, and plain
answers and plain text surely lose no more than with the vectors as they are. For each kind of encoding the rungs of a
ladder are tried by bisection, so a kind takes three or four tries. It is an upper bound: the length with these
encodings, not the shortest that there is.

What a share p of N elements, with b bits each, takes if where they are is written as shortly as possible:

    N H(p) + p N b bits,   H(p) = -p log2 p - (1 - p) log2(1 - p)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pv.vecstore.evaluate.statistics import Interval

__all__ = ["KINDS", "Baseline", "Length", "Rung", "ideal_bytes", "next_rung"]

SHARE = 0.95
TOLERANCE = 0.01
"""Nats a token that plain text may surely lose more than with the vectors as they are."""
KINDS: Mapping[str, tuple[str, ...]] = {
    "int8": ("int8",),
    "ternary": ("ternary",),
    "lowrank": tuple(f"lowrank:{2**k}" for k in range(9)),
    "sparse": tuple(f"sparse:{p:g}" for p in (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)),
}
"""By kind of encoding, its rungs, the smallest first."""


@dataclass(frozen=True, slots=True)
class Rung:
    """One encoding that was tried. `more`: what it loses more than the vectors as they are, nats a token, on plain
    answers and on plain text. `share`: of elements that are not 0, where the encoding is one that leaves some out."""

    encoding: str
    kind: str
    stored_bytes: int
    effect: Interval
    kept: Interval | None
    more_answers: Interval | None
    more_text: Interval | None
    share: float | None = None
    ideal_bytes: float | None = None

    @property
    def keeps(self) -> bool:
        return self.kept is not None and self.kept.low >= SHARE

    @property
    def damages(self) -> bool:
        return any(one is not None and one.low > TOLERANCE for one in (self.more_answers, self.more_text))

    @property
    def holds(self) -> bool:
        return self.keeps and not self.damages


@dataclass(frozen=True, slots=True)
class Baseline:
    """Something else that takes so many bytes, and what it keeps of the effect."""

    name: str
    bytes: float
    kept: Interval | None


@dataclass(frozen=True, slots=True)
class Length:
    """A search. `effect` is that of the vectors as they are, which take `stored_bytes`, and `elements` in all."""

    behaviour: str
    elements: int
    stored_bytes: int
    effect: Interval
    rungs: tuple[Rung, ...]
    baselines: tuple[Baseline, ...] = ()

    def smallest(self, kind: str | None = None) -> Rung | None:
        """The smallest that does the same, of one kind or of all."""
        good = [one for one in self.rungs if one.holds and kind in (None, one.kind)]
        return min(good, key=lambda one: one.stored_bytes, default=None)

    def with_baselines(self, baselines: Sequence[Baseline]) -> Length:
        return replace(self, baselines=tuple(baselines))

    def to_json(self) -> dict[str, Any]:
        found = asdict(self)
        best = self.smallest()
        return {**found, "smallest": None if best is None else best.encoding}


def next_rung(ladder: Sequence[str], tried: Mapping[str, bool]) -> str | None:
    """What to try next of a ladder, smallest first, of which some did or did not do; None where that is settled."""
    low = max((i for i, rung in enumerate(ladder) if tried.get(rung) is False), default=-1)
    high = min((i for i, rung in enumerate(ladder) if tried.get(rung) and i > low), default=len(ladder))
    return ladder[(low + high) // 2] if high - low > 1 else None


def ideal_bytes(elements: int, share: float, bits: float) -> float:
    """Of `elements`, of which a share is not 0 and takes so many bits each."""
    entropy = 0.0
    if 0 < share < 1:
        entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share)
    return elements * (entropy + share * bits) / 8
