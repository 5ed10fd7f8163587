"""Run an experiment: what is not measured yet is measured, then its table, plot and page are written."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path

from examples.experiments.cells import Cells
from examples.experiments.code import measuring, own, rooms
from examples.experiments.experiment import Bench, Case, Cell, Experiment, Found, Plan
from examples.experiments.vectors import Vectors
from pv.registry.errors import CheckpointRefused
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.fingerprint import fingerprint, table_id
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.neutral_set import neutral_set

__all__ = ["Run"]


@dataclass(frozen=True, slots=True)
class Run:
    """One experiment on one base. `cache` has what was measured and trained."""

    name: str
    experiment: Experiment
    plan: Plan
    base: Path
    cache: Path

    def found(self) -> Found:
        """All cells. A stop, by Ctrl-C or worse, loses the one that was being measured."""
        if not (self.base / "config.json").is_file():
            raise CheckpointRefused(
                f"no model in {self.base}",
                hint="`make base` fetches the one that pv is measured on; or --base DIR",
            )
        with Checkpoint(self.base) as weights:
            base_id = table_id(fingerprint(weights))
        plain = _plain(self.plan)
        common = {
            "experiment": self.name, "base": base_id, "neutral": plain.id, "dtype": "bf16",
            "code": [
                rooms("train", "evaluate", "models"),
                own("lab", "deltas", "measured", "vectors"),
                measuring(self.name),
            ],
        }  # fmt: skip
        cells = Cells(self.cache / "cells" / self.name, common)
        vectors = Vectors(self.base, base_id, self.cache / "vectors")
        cases = self.experiment.cases(self.plan)
        known = [cells.get(case.to_json()) for case in cases]
        todo = [at for at, one in enumerate(known) if one is None]
        if todo:
            self._measure(cases, todo, known, cells, vectors, plain)
        there = [Cell(case.values, one) for case, one in zip(cases, known, strict=True) if one is not None]
        return Found(there, tuple(self.experiment.notes(self.plan)))

    def _measure(
        self,
        cases: list[Case],
        todo: list[int],
        known: list[dict[str, object] | None],
        cells: Cells,
        vectors: Vectors,
        plain: Rows,
    ) -> None:
        from examples.experiments.lab import Lab

        _say(f"{self.name}: {len(cases)} cells, {len(cases) - len(todo)} of them measured before")
        began = time.monotonic()
        bench = Bench(Lab(self.base, plain=plain, dtype="bf16"), vectors)
        for done, at in enumerate(todo, start=1):
            started = time.monotonic()
            known[at] = self.experiment.measure(bench, cases[at])
            cells.put(cases[at].to_json(), known[at] or {})
            now = time.monotonic()
            left = (now - began) / done * (len(todo) - done)
            _say(f"  {len(cases) - len(todo) + done}/{len(cases)}  {cases[at]}  {now - started:.0f} s"
                 + (f", about {_long(left)} left" if left else ""))  # fmt: skip


def _plain(plan: Plan) -> Rows:
    """pv's neutral set; of a quick run, two answers and two texts."""
    rows = neutral_set()
    if not plan.quick:
        return rows
    answers, texts = ([row for row in rows if bool(row.prompt) is kind] for kind in (True, False))
    short = (*sorted(answers, key=_size)[:2], *sorted(texts, key=_size)[:2])
    return Rows(short, source=f"{rows.source}, four of it")


def _size(row: object) -> int:
    return len(str(row))


def _long(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
