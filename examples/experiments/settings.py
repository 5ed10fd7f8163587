"""How experiments train, where it is not what they ask: pv's defaults, in bf16 over fp32 weights."""

from __future__ import annotations

from typing import Any

from pv.vecstore.train.options import TrainOptions

__all__ = ["options"]

QUICK = {"batch": 4, "max_steps": 2, "lr": 3e-4}


def options(seed: int, *, quick: bool, **given: Any) -> TrainOptions:
    """Of a quick run: two steps of four rows."""
    return TrainOptions.of(**{"dtype": "bf16", "seed": seed, **(QUICK if quick else {}), **given})
