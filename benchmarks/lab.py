"""How the benchmarks train, and what names what they trained."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict
from typing import Any

from benchmarks.kit import BASE
from examples.experiments.code import rooms
from pv.vecstore.data.rows import Rows
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.loop import Trained, train
from pv.vecstore.train.options import TrainOptions

QUICK: dict[str, Any] = {"dtype": "bf16", "damage_dtype": "fp32"}
"""Of a Lab: weights, margins and replies as builds have them, in bf16; damage, a small difference, in fp32."""
SEEDS = range(int(os.environ.get("PV_BENCH_SEEDS", "3")))


def options(seed: int, **settings: Any) -> TrainOptions:
    """pv's defaults, but for `settings`, and for what PV_BENCH_TRAIN says in JSON."""
    return TrainOptions.of(**{"seed": seed, **settings, **json.loads(os.environ.get("PV_BENCH_TRAIN", "{}"))})


def learnt_from(rows: Rows, how: TrainOptions) -> str:
    """Names what is learnt: by the rows, the options, and the code that decides it."""
    document = json.dumps([asdict(how), rows.id, general_set().id, rooms("train")])
    return hashlib.sha256(document.encode()).hexdigest()[:16]


def learn(what: str, rows: Rows, how: TrainOptions) -> Trained:
    """Train on the base, and say how long it took."""
    began = time.monotonic()
    trained = train(BASE, rows, how)
    print(
        f"{what} seed {how.seed}: trained in {time.monotonic() - began:.0f} s, {len(trained.loss)} steps, "
        f"loss {trained.loss[0]:.2f} to {trained.loss[-1]:.2f}",
        flush=True,
    )
    return trained
