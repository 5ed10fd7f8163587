"""The base in memory, vectors added to it at any weight, and what is measured of that: all in float32."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import cache
from typing import Any

import torch

from benchmarks.kit import BASE, ROWS
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Damage, damage, neutral
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.neutral_set import neutral_set
from pv.vecstore.models.generate import Reply, written
from pv.vecstore.models.load import load
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.options import TrainOptions

SEEDS = range(int(os.environ.get("PV_BENCH_SEEDS", "3")))
Deltas = Mapping[str, Any]


class Lab:
    """`held` are rows to measure on, by name."""

    def __init__(self, held: Mapping[str, Rows]) -> None:
        self.model, self.tokenizer = load(BASE)
        self.weights = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.held = held
        self.plain = neutral(self.model, self.tokenizer, neutral_set())
        self.base = {name: margins(self.model, self.tokenizer, rows) for name, rows in held.items()}

    def put(self, vectors: Sequence[Deltas], weight: float = 1.0) -> None:
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                p.copy_(self.weights[name])
                for deltas in vectors:
                    if name in deltas:
                        p += weight * torch.from_numpy(deltas[name]).float()

    def margins(self, name: str) -> Margins:
        return margins(self.model, self.tokenizer, self.held[name])

    def damage(self) -> Damage:
        return damage(neutral(self.model, self.tokenizer, neutral_set()), self.plain)

    def replies(self, rows: Rows, tokens: int) -> list[Reply]:
        return written(self.model, self.tokenizer, [row.prompt for row in rows], tokens, batch=24)


def options(seed: int, **settings: Any) -> TrainOptions:
    """pv's defaults, but for `settings`, and for what PV_BENCH_TRAIN says in JSON."""
    return TrainOptions.of(**{"seed": seed, **settings, **json.loads(os.environ.get("PV_BENCH_TRAIN", "{}"))})


def learnt_from(rows: Rows, options: TrainOptions) -> str:
    """Names what is learnt: by the rows, the options, and the code that decides it."""
    document = json.dumps([asdict(options), rows.id, general_set().id, _code()])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def nats(found: Damage) -> str:
    assert found.answers is not None and found.text is not None
    return f"{found.answers.mean:+.4f} answers, {found.text.mean:+.4f} text"


@cache
def _code() -> str:
    folder = ROWS.parent.parent / "vecstore" / "train"
    found = b"".join((folder / f"{one}.py").read_bytes() for one in ("objective", "reference", "stretches"))
    return hashlib.sha256(found).hexdigest()
