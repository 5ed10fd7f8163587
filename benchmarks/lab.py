"""The base in memory, vectors added to it, and what is measured of that, all in float32; and what names a training."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.kit import ROWS
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Damage, Neutral, damage, neutral
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.models.load import load
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.options import TrainOptions

SEEDS = range(int(os.environ.get("PV_BENCH_SEEDS", "3")))
Deltas = Mapping[str, Any]


class Lab:
    """`put` puts vectors on the base; `before` and the damage are against the base alone, which is measured once."""

    def __init__(self, base: Path) -> None:
        self.model, self.tokenizer = load(base)
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self._there: Sequence[Deltas] = ()
        self._margins: dict[str, Margins] = {}
        self._neutral: Neutral | None = None

    def put(self, vectors: Sequence[Deltas]) -> None:
        self._there = vectors
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.weights[name])
                for deltas in vectors:
                    if name in deltas:
                        p += torch.from_numpy(deltas[name]).float()

    def margins(self, rows: Rows) -> Margins:
        return margins(self.model, self.tokenizer, rows)

    def before(self, rows: Rows) -> Margins:
        if rows.id not in self._margins:
            there = self._there
            self.put([])
            self._margins[rows.id] = self.margins(rows)
            self.put(there)
        return self._margins[rows.id]

    def damage(self) -> Damage:
        if self._neutral is None:
            there = self._there
            self.put([])
            self._neutral = neutral(self.model, self.tokenizer, neutral_set())
            self.put(there)
        return damage(neutral(self.model, self.tokenizer, neutral_set()), self._neutral)


def options(seed: int, **settings: Any) -> TrainOptions:
    """pv's defaults, but for `settings`, and for what PV_BENCH_TRAIN says in JSON."""
    return TrainOptions.of(**{"seed": seed, **settings, **json.loads(os.environ.get("PV_BENCH_TRAIN", "{}"))})


def learnt_from(rows: Rows, how: TrainOptions) -> str:
    """Names what is learnt: by the rows, the options, and the code that decides it."""
    document = json.dumps([asdict(how), rows.id, general_set().id, _code()])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


@cache
def _code() -> str:
    folder = ROWS.parent.parent / "vecstore" / "train"
    found = b"".join((folder / f"{one}.py").read_bytes() for one in ("objective", "reference", "stretches"))
    return hashlib.sha256(found).hexdigest()
