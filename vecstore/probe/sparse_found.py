"""What training that asks for few changes came to, beside plain training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_found import Used
from pv.vecstore.probe.edit_verdict import Verdict
from pv.vecstore.probe.sparse_graft import Fewer, Reach
from pv.vecstore.probe.values import read, unlike, written

__all__ = ["Point", "SparseRun", "Sparsity", "claimed"]


@dataclass(frozen=True, slots=True)
class Point:
    """The effect of a graft of k neurons, in nats: of those that changed most, and of as many at random."""

    k: int
    effect: Interval
    random: Interval | None


@dataclass(frozen=True, slots=True)
class SparseRun:
    """One training; `strength` 0 is the plain one. Shares are of what was trained and differs now.

    `kept` is the effect as a share of plain training's, None where that has none for certain; `fewer` compares k50 with
    plain training's. `k50` and `k90` carry that share of the run's own effect; `random50` is of random neurons. `alone`
    is the share of it that all neurons together carry, `alone50` carries half of that, and `alone_fewer` compares it.
    """

    strength: float
    weights: float
    neurons: float
    heads: float | None
    norm: float
    loss: tuple[float, float]
    effect: Interval
    kept: Interval | None
    damage: Interval
    kl: Interval
    curve: tuple[Point, ...]
    k50: Reach
    k90: Reach
    random50: Reach
    fewer: Fewer | None
    alone: Interval | None
    alone50: Reach
    alone_fewer: Fewer | None


@dataclass(frozen=True, slots=True)
class Sparsity:
    """`penalized`: "neurons" (and heads), or "weights". `claim`: that fewer neurons carry what was trained so."""

    probe: str
    what: str
    penalized: str
    count: int
    data: Mapping[str, Used]  # rows, training, neighbours
    runs: tuple[SparseRun, ...]
    claim: Verdict
    why: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return written(self)

    @staticmethod
    def from_json(document: object) -> Sparsity:
        """Raises FormatError. Plain training comes first, and each training has its grafts."""
        found = read(Sparsity, document)
        if not found.runs or found.runs[0].strength or any(not run.curve for run in found.runs):
            raise unlike("sparsity.runs")
        return found


def claimed(runs: tuple[SparseRun, ...], enough: float = 0.8) -> tuple[Verdict, str]:
    """Of neurons for half of what all neurons together carry. Held: some penalty needs surely fewer than plain training
    does, and keeps, as far as can be told, `enough` of plain training's effect. Did not hold: every penalty that keeps
    so much surely needs more."""
    keeping = [
        (run, run.alone_fewer)
        for run in runs
        if run.kept is not None and run.kept.mean >= enough and run.alone_fewer is not None
    ]
    if not keeping:
        return "inconclusive", f"no penalty kept {enough:.0%} of plain training's effect"
    better = [(few.ratio, run) for run, few in keeping if few.verdict == "fewer" and few.ratio is not None]
    if better:
        times, best = min(better, key=lambda one: one[0])
        return (
            "held",
            f"strength {best.strength:g} needs {times:.2f} times as many for half of what all neurons carry",
        )
    if all(few.verdict == "not fewer" for _, few in keeping):
        return (
            "did not hold",
            "every penalty that keeps the effect needs more for half of what all neurons carry",
        )
    if any(few.ratio is None for _, few in keeping):
        return "inconclusive", "half of what all neurons carry is no certain number: they carry too little"
    return "inconclusive", "the intervals of k50 / plain training's k50 include 1"
