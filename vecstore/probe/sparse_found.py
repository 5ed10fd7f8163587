"""What training that asks for few changes came to, beside plain training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_read import interval, items, maybe, number, rows, text, verdict, whole
from pv.vecstore.probe.sparse_graft import Fewer, Reach

__all__ = ["Point", "SparseRun", "Sparsity", "claimed"]


@dataclass(frozen=True, slots=True)
class Point:
    """The effect of a graft of k neurons, in nats: of those that changed most, and of as many at random."""

    k: int
    effect: Interval
    random: Interval | None

    def to_json(self) -> dict[str, Any]:
        random = None if self.random is None else self.random.to_json()
        return {"k": self.k, "effect": self.effect.to_json(), "random": random}

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Point:
        return Point(whole(document["k"]), interval(document["effect"]), maybe(interval, document["random"]))


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

    def to_json(self) -> dict[str, Any]:
        return {
            "strength": self.strength,
            "weights": self.weights,
            "neurons": self.neurons,
            "heads": self.heads,
            "norm": self.norm,
            "loss": list(self.loss),
            "effect": self.effect.to_json(),
            "kept": None if self.kept is None else self.kept.to_json(),
            "damage": self.damage.to_json(),
            "kl": self.kl.to_json(),
            "curve": [point.to_json() for point in self.curve],
            **{name: getattr(self, name).to_json() for name in ("k50", "k90", "random50")},
            "fewer": None if self.fewer is None else self.fewer.to_json(),
            "alone": None if self.alone is None else self.alone.to_json(),
            "alone50": self.alone50.to_json(),
            "alone_fewer": None if self.alone_fewer is None else self.alone_fewer.to_json(),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> SparseRun:
        first, last = items(document["loss"])
        return SparseRun(
            number(document["strength"]), number(document["weights"]), number(document["neurons"]),
            maybe(number, document["heads"]), number(document["norm"]), (number(first), number(last)),
            interval(document["effect"]), maybe(interval, document["kept"]), interval(document["damage"]),
            interval(document["kl"]), tuple(Point.from_json(point) for point in items(document["curve"])),
            Reach.from_json(document["k50"]), Reach.from_json(document["k90"]), Reach.from_json(document["random50"]),
            maybe(Fewer.from_json, document["fewer"]), maybe(interval, document["alone"]),
            Reach.from_json(document["alone50"]), maybe(Fewer.from_json, document["alone_fewer"]),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sparsity:
    """`penalized`: "neurons" (and heads), or "weights". `claim`: that fewer neurons carry what was trained so."""

    probe: str
    what: str
    penalized: str
    count: int
    data: Mapping[str, Mapping[str, Any]]  # rows, training, neighbours: name, id, n
    runs: tuple[SparseRun, ...]
    claim: str
    why: str
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "probe": self.probe,
            "what": self.what,
            "penalized": self.penalized,
            "count": self.count,
            "data": {name: dict(one) for name, one in self.data.items()},
            "runs": [run.to_json() for run in self.runs],
            "claim": self.claim,
            "why": self.why,
            "notes": list(self.notes),
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Sparsity:
        """Raises KeyError, TypeError or ValueError for what is none."""
        runs = tuple(SparseRun.from_json(run) for run in items(document["runs"]))
        if not runs or runs[0].strength or any(not run.curve for run in runs):
            raise ValueError("plain training comes first, and each training has its grafts")
        return Sparsity(
            text(document["probe"]),
            text(document["what"]),
            text(document["penalized"]),
            whole(document["count"]),
            rows(document["data"]),
            runs,
            verdict(document["claim"]),
            text(document["why"]),
            tuple(text(note) for note in items(document["notes"])),
        )


def claimed(runs: tuple[SparseRun, ...], enough: float = 0.8) -> tuple[str, str]:
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
