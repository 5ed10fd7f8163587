"""How a behaviour is trained: every setting, its default and its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from pv.registry.errors import UsageError

__all__ = ["TrainOptions"]


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """`batch` is in rows per step, `warmup` a share of the steps, `clip` the largest gradient norm (0: none).

    `preference` weighs the term that tells chosen from rejected, for rows that have both (0: leave it out).

    Raises UsageError for a setting out of range.
    """

    lr: float = 1e-4
    epochs: int = 2
    batch: int = 8
    rank: int = 32
    seed: int = 0
    warmup: float = 0.1
    schedule: Literal["linear", "constant"] = "linear"
    weight_decay: float = 0.0
    train_embeddings: bool = False
    max_steps: int | None = None
    frozen_context: bool = True
    optimizer: Literal["apollo", "adamw"] = "apollo"
    clip: float = 1.0
    preference: float = 1.0

    def __post_init__(self) -> None:
        whole = {
            "epochs": self.epochs,
            "batch": self.batch,
            "rank": self.rank,
            "max_steps": self.max_steps or 1,
        }
        for name, value in whole.items():
            if value < 1 or (name == "max_steps" and self.max_steps == 0):
                raise UsageError(f"{name} must be at least 1")
            if not isinstance(value, int):
                raise UsageError(f"{name} must be a whole number, not {value!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed < 1 << 63:
            raise UsageError(f"seed must be a whole number from 0 to 2^63 - 1, not {self.seed!r}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"lr must be a positive number, not {self.lr}", hint="1e-4 is a good start")
        for name, number in {
            "weight_decay": self.weight_decay,
            "clip": self.clip,
            "preference": self.preference,
        }.items():
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"{name} must not be negative")
        if not 0 <= self.warmup <= 1:
            raise UsageError("warmup is a share of the steps, from 0 to 1")
        if self.schedule not in ("linear", "constant"):
            raise UsageError(f"unknown schedule {self.schedule!r}", hint="linear or constant")
        if self.optimizer not in ("apollo", "adamw"):
            raise UsageError(f"unknown optimizer {self.optimizer!r}", hint="apollo or adamw")

    def steps(self, rows: int) -> int:
        """How many steps a run over that many rows takes."""
        steps = self.epochs * math.ceil(rows / self.batch)
        return min(steps, self.max_steps) if self.max_steps is not None else steps

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 to steps - 1: linear warm-up, then linear to zero, or constant."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * (steps - step) / (steps - warm)
