"""What behaviours cost on tasks, alone and merged, and what they do at weight -1.

The vectors of `composition`, out of its cache where they are there: right answers to pv's own questions
(docs/scores.md) at one, two, four and eight behaviours; margins and damage of each at weight -1. PV_BENCH_SEEDS
(default 3).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.composition import NAMES, _groups, _vector
from benchmarks.kit import BASE, ROWS, Bars
from benchmarks.lab import QUICK, SEEDS
from examples.experiments.deltas import Deltas
from examples.experiments.lab import Lab
from pv.vecstore.data.rows import read_rows
from pv.vecstore.evaluate.damage import Damage
from pv.vecstore.evaluate.statistics import bootstrap, effect
from pv.vecstore.evaluate.tasks import Answers, answers, own_questions, tasks

MOST = 0.10  # nats a token of damage, at weight -1


class Cost:
    """Gathered seed by seed: `add`, then `say`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.held = {name: read_rows(ROWS / "eight" / f"{name}.heldout.jsonl") for name in NAMES}
        lab.put([])
        self.base = self._answers()
        self.after: dict[int, list[Answers]] = {1: [], 2: [], 4: [], 8: []}
        self.minus: dict[str, list[NDArray[np.float64]]] = {name: [] for name in NAMES}
        self.damage: dict[str, list[Damage]] = {name: [] for name in NAMES}

    def add(self, seed: int, vectors: Mapping[str, Deltas]) -> None:
        for size, found in self.after.items():
            for group in _groups(size):
                self.lab.put([vectors[name] for name in group])
                found.append(self._answers())
                parts = tasks(own_questions(), found[-1], self.base).parts
                said = "; ".join(
                    f"{one.task} {100 * one.accuracy.mean:.0f} % ({100 * one.accuracy_change.mean:+.1f} "
                    f"[{100 * one.accuracy_change.low:+.1f}, {100 * one.accuracy_change.high:+.1f}]), margin "
                    f"{one.margin_change.mean:+.2f} [{one.margin_change.low:+.2f}, {one.margin_change.high:+.2f}]"
                    for one in parts
                )
                print(f"seed {seed} tasks, {' + '.join(group)}: {said}", flush=True)
        for name in NAMES:
            self.lab.put([{key: -deltas for key, deltas in vectors[name].items()}])
            after, before, lost = (
                self.lab.margins(self.held[name]),
                self.lab.before(self.held[name]),
                self.lab.damage(),
            )
            moved = effect(after, before)
            self.minus[name].append(after.margin - before.margin)
            self.damage[name].append(lost)
            assert lost.answers is not None and lost.text is not None
            print(
                f"seed {seed} {name:9} at weight -1: effect {moved.mean:+6.1f} [{moved.low:+.1f}, {moved.high:+.1f}]  "
                f"damage {lost.answers.mean:+.4f} answers, {lost.text.mean:+.4f} text", flush=True,
            )  # fmt: skip

    def say(self, bars: Bars) -> None:
        """Questions and rows are what is drawn again for an interval; over models and seeds it is a mean."""
        names = np.array([one.task for one in own_questions()])
        for size, models in self.after.items():
            for task in own_questions().tasks:
                of = names == task
                right = np.mean([one.margin[of] > 0 for one in models], axis=0)
                change = bootstrap(100 * (right - (self.base.margin[of] > 0)))
                margin = bootstrap(np.mean([one.margin[of] for one in models], axis=0) - self.base.margin[of])
                value = f"{change.mean:+.1f} [{change.low:+.1f}, {change.high:+.1f}] points, margin {margin.mean:+.2f}"
                bars.say(f"{size}: right answers to {task}", value, "interval reaches 0", change.high >= 0)
        for name in NAMES:
            moved = bootstrap(np.mean(self.minus[name], axis=0))
            value = f"{moved.mean:+.1f} [{moved.low:+.1f}, {moved.high:+.1f}] nats"
            bars.say(f"{name} at weight -1: margin", value, "below the base's", moved.high < 0)
            worst = max(
                float(np.mean([one.mean for one in found if one is not None]))
                for found in ([d.answers for d in self.damage[name]], [d.text for d in self.damage[name]])
            )
            bars.say(f"{name} at weight -1: damage", f"{worst:+.4f} nats a token", f"{MOST}", worst <= MOST)

    def _answers(self) -> Answers:
        return answers(self.lab.model, self.lab.tokenizer, own_questions())


def main() -> bool:
    bars, cost = Bars(), Cost(Lab(BASE, **QUICK))
    for seed in SEEDS:
        cost.add(seed, {name: _vector(name, seed) for name in NAMES})
    cost.say(bars)
    return bars.all_hold
