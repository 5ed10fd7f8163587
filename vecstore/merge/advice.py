"""What the interference report recommends: a function of the measured numbers and of nothing else. docs/interference.md
has the evidence for each threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pv.vecstore.merge.report import Interference, PairFigures

__all__ = ["RULE", "Advice", "recommend"]

SAME = 0.5  # cosine: half of the squared norm of either is in both
AGAINST = -0.1  # cosine
CONFLICT = 0.6  # share of opposite signs; 0.5 is a random pair's
LARGE = 2.0  # norm of the total over that of the largest behaviour: four unrelated ones of one size

RULE = (
    f"add, unless a pair has cosine >= {SAME} (the same change twice: scale it down), a pair has cosine <= {AGAINST} "
    f"with >= {100 * CONFLICT:.0f} % opposite signs (they undo one another: keep one), or the total is >= {LARGE:g} "
    "times the largest behaviour (scale all down to it)"
)
"""In one line, as the command prints it and the document has it."""

Kind = Literal["add", "same", "undo", "large", "rule", "alone", "not finite"]


@dataclass(frozen=True, slots=True)
class Advice:
    """`factor`: what to multiply the weights of `behaviours` by; None where that is no answer."""

    kind: Kind
    behaviours: tuple[str, ...]
    text: str
    factor: float | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "behaviours": list(self.behaviours),
            "text": self.text,
            "factor": self.factor,
        }


def recommend(found: Interference) -> tuple[Advice, ...]:
    """The warnings, worst first; if there are none, "add" or "alone". "rule" comes last: it is about the method."""
    names = tuple(one.name for one in found.behaviours)
    if not all(map(math.isfinite, (found.total, found.sum, *(one.norm for one in found.behaviours)))):
        text = "a behaviour or the base holds weights that are not finite: nothing can be said of them"
        return (Advice("not finite", names, text),)
    moving = tuple(one.name for one in found.behaviours if one.norm > 0)
    warnings = [*_undoing(found.pairs), *_same(found.pairs), *_large(found, moving)]
    if not warnings:
        warnings.append(_fine(moving))
    return (*warnings, *_about_the_rule(found, moving))


def _undoing(pairs: Sequence[PairFigures]) -> list[Advice]:
    return [
        Advice(
            "undo",
            (p.a, p.b),
            f"{p.a} and {p.b} undo one another: cosine {p.cosine:+.2f}, opposite signs in {100 * p.conflict:.0f} % of "
            "what both move; keep one, or measure both after the merge",
        )
        for p in sorted(pairs, key=lambda p: p.cosine)
        if p.cosine <= AGAINST and p.conflict >= CONFLICT
    ]


def _same(pairs: Sequence[PairFigures]) -> list[Advice]:
    """The factor makes the sum of the two as long as the longer one of them."""
    return [
        Advice(
            "same",
            (p.a, p.b),
            f"{p.a} and {p.b} are much the same change: cosine {p.cosine:+.2f}; added, it counts twice: keep one, or "
            f"scale both by {_factor(p):.2g}",
            _factor(p),
        )
        for p in sorted(pairs, key=lambda p: -p.cosine)
        if p.cosine >= SAME
    ]


def _factor(pair: PairFigures) -> float:
    both = pair.norm_a**2 + pair.norm_b**2 + 2 * pair.cosine * pair.norm_a * pair.norm_b
    return max(pair.norm_a, pair.norm_b) / math.sqrt(both)


def _large(found: Interference, names: tuple[str, ...]) -> list[Advice]:
    if len(names) < 2 or found.total < LARGE * found.largest:
        return []
    factor = found.largest / found.total
    return [
        Advice(
            "large",
            names,
            f"together they move the weights {found.total / found.largest:.1f} times as far as the largest of them "
            f"alone: scale all by {factor:.2g} to come as far as that one, and measure",
            factor,
        )
    ]


def _fine(names: tuple[str, ...]) -> Advice:
    if len(names) < 2:
        return Advice("alone", names, "nothing to interfere: fewer than two behaviours move a weight")
    return Advice("add", names, "combine with add: no two are the same change, and none undoes another")


def _about_the_rule(found: Interference, names: tuple[str, ...]) -> list[Advice]:
    if found.method == "add" or len(names) < 2:
        return []
    text = (
        f"the persona combines with {found.method}; on language models add is the only rule that was seen to help "
        "reliably: measure both"
    )
    return [Advice("rule", names, text)]
