"""What `probe sparsity` measures, part by part: each is noted at once; what is known is not trained or run again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import OPENING, Distributions, Neutral, neutral
from pv.vecstore.evaluate.margins import margins
from pv.vecstore.evaluate.statistics import bootstrap, ratio
from pv.vecstore.models.load import load
from pv.vecstore.probe.edit_change import Change, changed, norm
from pv.vecstore.probe.edit_verdict import transfer
from pv.vecstore.probe.sparse_found import Point, SparseRun, Sparsity, claimed
from pv.vecstore.probe.sparse_graft import Curve, change_norms, fewer, grid, part_of, random_order, reach
from pv.vecstore.probe.sparse_units import Units, units
from pv.vecstore.progress import Report, Tick, said, stage
from pv.vecstore.repo.probe.record import ProbeRecord
from pv.vecstore.train.loop import Step, train
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.proximal import Penalty, group_norms

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SparsePlan", "measured"]

F64 = NDArray[np.float64]
POINTS = 8
"""Numbers of neurons on the curve."""
ERR = 0.05
"""Of the claim: shared by all strengths, any of which makes it hold."""


@dataclass(frozen=True, slots=True)
class SparsePlan:
    what: str
    rows: Rows
    training: Rows
    neighbours: Rows
    options: TrainOptions
    penalty: str
    strengths: tuple[float, ...]
    seed: int
    threads: int
    notes: tuple[str, ...] = ()  # on how the training was chosen

    @property
    def every_row(self) -> list[Rows]:
        return [self.rows, self.training, self.neighbours]

    @property
    def settings(self) -> dict[str, Any]:
        """Numbers of trainings depend on how many threads there are."""
        return {
            "penalty": self.penalty,
            "strengths": list(self.strengths),
            "seed": self.seed,
            "points": POINTS,
            "options": asdict(self.options),
            "threads": self.threads,
        }


def measured(
    record: ProbeRecord, plan: SparsePlan, folder: Callable[[], Path], progress: Report | None
) -> Sparsity:
    with ExitStack() as held:
        return _Run(record, plan, folder, progress, held).found()


@dataclass(eq=False)
class _Run:
    record: ProbeRecord
    plan: SparsePlan
    made: Callable[[], Path]
    progress: Report | None
    held: ExitStack
    change: tuple[float, Change] | None = None  # of the training that was asked for last

    @cached_property
    def folder(self) -> Path:
        return self.made()

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        said(self.progress, "loading the model")
        model, tokenizer = load(self.folder)
        return model.requires_grad_(False), tokenizer

    @cached_property
    def units(self) -> Units:
        return units(self.loaded[0])

    @cached_property
    def count(self) -> int:
        return int(self.record.part("neurons", lambda: self.units.count))

    # Training

    def trained(self, strength: float) -> Change:
        """What a training changed: kept until another one is asked for."""
        if self.change is None or self.change[0] != strength:
            self.change = None
            self.change = (strength, self._train(strength))
        return self.change[1]

    def _train(self, strength: float) -> Change:
        import torch

        plan, found = self.plan, self.units
        bundles = (*found.neurons, *found.heads) if plan.penalty == "neurons" else ()
        label = f"training with a penalty of {strength:g}" if strength else "training"

        def step(one: Step) -> None:
            if self.progress is not None:
                now = (one.loss, one.tokens_per_s, one.seconds_left) if one.step else ()
                self.progress(Tick(label, one.step, one.steps, "steps", *now))

        penalty = Penalty(strength, bundles) if strength else None
        made = train(
            self.folder, plan.training, plan.options, progress=step, threads=plan.threads, penalty=penalty
        )
        self.record.part(
            f"{strength:g}:training",
            lambda: {"loss": [made.loss[0], made.loss[-1]], "parameters": made.settings["parameters"]},
        )
        own = dict(self.loaded[0].named_parameters())
        return {name: torch.from_numpy(delta) for name, delta in made.deltas.items() if name in own}

    # One training

    def facts(self, strength: float) -> dict[str, Any]:
        def compute() -> dict[str, Any]:
            change = self.trained(strength)
            there = self.record.part(f"{strength:g}:training", dict)
            moved = sum(int(delta.count_nonzero()) for delta in change.values())
            norms = change_norms(change, self.units)
            return {
                "loss": there["loss"],
                "weights": moved / there["parameters"],
                "neurons": float((norms > 0).mean()),
                "heads": _share_of_heads(change, self.units),
                "norm": norm(change),
            }

        found: dict[str, Any] = self.record.part(f"{strength:g}:facts", compute)
        return found

    def margins(self, key: str, change: Callable[[], Change] | None) -> F64:
        def compute() -> list[float]:
            rows = self.plan.rows
            with ExitStack() as inside:
                if change is not None:
                    inside.enter_context(changed(self.loaded[0], change()))
                update = stage(self.progress, f"measuring {key}", "rows", len(rows))
                found: list[float] = margins(*self.loaded, rows, progress=update).margin.tolist()
            return found

        return np.array(self.record.part(f"margins:{key}", compute))

    def effect(self, key: str, change: Callable[[], Change]) -> F64:
        return self.margins(key, change) - self.margins("base", None)

    @cached_property
    def before(self) -> tuple[Neutral, Distributions]:
        kept = self.held.enter_context(Distributions())
        rows = self.plan.neighbours
        found = neutral(
            *self.loaded, rows, keep=kept,
            progress=stage(self.progress, "measuring base on neighbours", "rows", len(rows)),
        )  # fmt: skip
        if np.count_nonzero(found.rest_tokens) < 2:
            raise DataError(
                f"{rows.source}: fewer than 2 answers of more than {OPENING} tokens, and no texts",
                hint="what a change opens an answer with is not called damage: longer rows, or plain texts",
            )
        return found, kept

    def lost(self, strength: float) -> dict[str, Any]:
        def compute() -> dict[str, list[float]]:
            before, kept = self.before
            rows = self.plan.neighbours
            change = self.trained(strength)
            update = stage(self.progress, f"measuring {strength:g} on neighbours", "rows", len(rows))
            with changed(self.loaded[0], change):
                after = neutral(*self.loaded, rows, against=kept, progress=update)
            return {
                "rest": (before.rest - after.rest).tolist(),
                "tokens": before.rest_tokens.tolist(),
                "kl": after.kl.tolist(),
            }

        found: dict[str, Any] = self.record.part(f"{strength:g}:neighbours", compute)
        return found

    def curves(self, strength: float, whole: F64) -> tuple[Curve, Curve]:
        """Grafts of the neurons that changed most, and of random ones: there every second point, and all."""
        ks = grid(self.count, POINTS)
        base = self.margins("base", None)

        def graft(k: int, order: Callable[[], NDArray[np.int64]]) -> Callable[[], Change]:
            return lambda: part_of(self.trained(strength), self.units, order()[:k])

        def largest() -> NDArray[np.int64]:
            return np.argsort(-change_norms(self.trained(strength), self.units), kind="stable")

        top = [self.margins(f"{strength:g}, {k} neurons", graft(k, largest)) - base for k in ks]
        some = sorted({*ks[1::2], ks[-1]})
        drawn = []
        for k in some:
            if k == self.count:
                drawn.append(top[-1])
                continue

            def order(k: int = k) -> NDArray[np.int64]:
                return random_order(self.count, self.plan.seed, k)

            drawn.append(self.margins(f"{strength:g}, {k} random neurons", graft(k, order)) - base)
        return Curve(ks, np.array(top), whole), Curve(some, np.array(drawn), whole)

    # Together

    def found(self) -> Sparsity:
        plan, runs = self.plan, list[SparseRun]()
        plain: Curve | None = None
        for strength in (0.0, *plan.strengths):
            facts = self.facts(strength)

            def all_of_it(strength: float = strength) -> Change:
                return self.trained(strength)

            whole = self.effect(f"{strength:g}", all_of_it)
            curve, drawn = self.curves(strength, whole)
            plain = plain or curve
            runs.append(self._run(strength, curve, drawn, plain, facts))
        verdict, why = claimed(tuple(runs))
        data = {"rows": plan.rows, "training": plan.training, "neighbours": plan.neighbours}
        return Sparsity(
            self.record.id, plan.what, plan.penalty, self.count,
            {name: {"name": r.source.rpartition("/")[2], "id": r.id, "n": len(r)} for name, r in data.items()},
            tuple(runs), verdict, why, (*plan.notes, *_notes(runs)),
        )  # fmt: skip

    def _run(
        self, strength: float, curve: Curve, drawn: Curve, plain: Curve, facts: dict[str, Any]
    ) -> SparseRun:
        seed, lost, whole = self.plan.seed, self.lost(strength), curve.whole
        level = 1 - ERR / len(self.plan.strengths)
        by_chance = dict(zip(drawn.ks, drawn.effects, strict=True))
        points = tuple(
            Point(
                k, bootstrap(one, seed=seed), bootstrap(by_chance[k], seed=seed) if k in by_chance else None
            )
            for k, one in zip(curve.ks, curve.effects, strict=True)
        )
        return SparseRun(
            strength, facts["weights"], facts["neurons"], facts["heads"], facts["norm"],
            (facts["loss"][0], facts["loss"][1]), bootstrap(whole, seed=seed),
            transfer(whole, plain.whole, seed=seed), ratio(lost["rest"], lost["tokens"], seed=seed),
            ratio(lost["kl"], lost["tokens"], seed=seed), points, reach(curve, 0.5, seed=seed),
            reach(curve, 0.9, seed=seed), reach(drawn, 0.5, seed=seed),
            fewer(curve, plain, seed=seed, level=level) if strength else None,
            transfer(curve.effects[-1], whole, seed=seed), reach(curve.alone, 0.5, seed=seed),
            fewer(curve.alone, plain.alone, seed=seed, level=level) if strength else None,
        )  # fmt: skip


def _share_of_heads(change: Change, found: Units) -> float | None:
    """Of heads, and groups of keys and values, that differ; None for attention of another kind."""
    moved = []
    for bundle in found.heads:
        there = [(one.of(change[one.name]), one.dim) for one in bundle if one.name in change]
        moved.append(group_norms(there).numpy() > 0 if there else np.zeros(bundle[0].count, bool))
    return float(np.concatenate(moved).mean()) if moved else None


def _notes(runs: list[SparseRun]) -> Iterator[str]:
    for run in runs:
        name = f"a penalty of {run.strength:g}" if run.strength else "plain training"
        if run.k50.k is None:
            yield f"with {name}, not even all neurons together carry half of the effect: attention has the rest"
    if runs[0].heads is None:
        yield "attention is of a kind that has no heads to penalize together: its weights are penalized one by one"
