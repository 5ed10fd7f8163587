"""How the benchmarks train, and what names what they trained."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from functools import cache
from typing import Any

from benchmarks.kit import ROWS
from pv.vecstore.data.rows import Rows
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.options import TrainOptions

SEEDS = range(int(os.environ.get("PV_BENCH_SEEDS", "3")))


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
    found = b"".join(
        (folder / f"{one}.py").read_bytes() for one in ("objective", "reference", "stretches", "forms")
    )
    return hashlib.sha256(found).hexdigest()
