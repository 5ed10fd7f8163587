"""How a behaviour is trained: every setting, its default and its bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

from pv.registry.errors import UsageError

__all__ = ["ADAPTERS", "HELD", "SAVE_EVERY_S", "Extent", "TrainOptions", "adapter_kind"]

ADAPTERS = ("lora", "rslora", "dora")
SAVE_EVERY_S = 300.0
"""How often a run is saved from which it can go on."""

STEPS, LEAST, MOST = 18, 2, 6
"""Steps that a run is to have, and the fewest and most epochs that this may take, where nobody said how many."""

HELD = 10.0
"""The weight of what is held to the base, where it is."""


@dataclass(frozen=True, slots=True)
class TrainOptions:
    """The defaults are those of `pv train`. Raises UsageError for a setting out of range.

    lr                learning rate, in the units of AdamW's for either optimizer
    epochs, batch     passes over the rows, and rows a step; `max_steps` ends a run sooner. None: as many epochs as make
                      about 18 steps, but 2 to 6; 2 where "all" is learnt
    micro_tokens      of a step's rows, those within so many tokens run at a time, and their gradients are added up:
                      bounds memory; the step means the same, up to rounding
    schedule          "linear" to 0, or "constant", after a linear warm-up over `warmup` of the steps
    optimizer         "apollo", with gradients projected to `rank`, or "adamw"
    clip              the largest norm of a step's gradient (0: no limit)
    preference        P of the loss below (0: SFT alone)
    learn             "difference": where chosen and rejected differ, or "all" of both; "teacher": of chosen what
                      another model predicts, which is given with the rows
    hold              H of the loss below (0: what they share is free)
    general           G of the loss below (0: no general answers)
    general_rows      general answers that join a step
    frozen_context    no gradient through the prompt, which costs less; False: through it too
    train_embeddings  train embeddings and head too
    seed              order of rows, and projections
    adapter           "lora:16", "rslora:16", "dora:16": train an adapter of that rank, not the weights themselves
    device            "cpu", "cuda", "mps", or "auto": the best that is there
    dtype             of matrix products, "fp32" or "bf16"; "auto" is bf16 where the processor multiplies in it, else
                      fp32. Weights stay in fp32
    gradient_checkpointing  compute activations again instead of keeping them: less memory, more time, the same bits

    The loss of a step is SFT + P * preference + H * held + G * general.
    SFT: -log p(chosen | prompt) of the tokens that are learnt, those that differ and the one after them; the first of a
    row counts as often as there are tokens learnt in the row, and the sum is divided by the number of tokens learnt in
    the step. Where rejected ends its turn and chosen goes on, the first has KL(goal || model) instead: the goal is the
    base's distribution with the probability of the end, and half of all others, moved to chosen's token; and what is
    held of such a row has the probability of the end moved to that token as well.
    Preference: log(1 + exp(r - c)), where c and r are the log-probabilities of the first tokens that differ: summed
    over the rows that have both (and where not rejected ends and chosen goes on: there the end is moved), divided by
    all rows of the step. Of rows that are learnt whole no token decides: each counts once, and c and r are the mean
    log-probabilities per token of both answers.
    Held: KL(base || model) of what chosen and rejected share at the beginning and at the end, a mean over its tokens.
    General: the same on ordinary answers to ordinary prompts, a mean; without their first eight tokens where a row
    differs within its first eight, and without the end of the turn where one differs there.
    Where a "teacher" is learnt, SFT is KL(teacher || model), a mean over the tokens of chosen.
    Where "difference" is learnt, a row is seen as it is and after an opening of another's (forms.py), in turn.
    """

    lr: float = 1e-4
    epochs: int | None = None
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
    micro_tokens: int = 2048
    learn: Literal["difference", "all", "teacher"] = "difference"
    hold: float = HELD
    general: float = HELD
    general_rows: int = 3
    adapter: str | None = None
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    gradient_checkpointing: bool = False

    @staticmethod
    def of(*, ordinary: bool = False, **given: Any) -> TrainOptions:
        """Where "all" is learnt nothing is held, unless given; nor are `ordinary` answers, unless there are some."""
        if given.get("learn") == "all":
            given = {"hold": 0.0, "general": HELD if ordinary else 0.0, **given}
        return TrainOptions(**given)

    def __post_init__(self) -> None:
        whole = {
            "epochs": 1 if self.epochs is None else self.epochs,
            "batch": self.batch,
            "rank": self.rank,
            "micro_tokens": self.micro_tokens,
            "general_rows": self.general_rows,
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
            "hold": self.hold,
            "general": self.general,
        }.items():
            if not (math.isfinite(number) and number >= 0):
                raise UsageError(f"{name} must not be negative")
        if not 0 <= self.warmup <= 1:
            raise UsageError("warmup is a share of the steps, from 0 to 1")
        if self.schedule not in ("linear", "constant"):
            raise UsageError(f"unknown schedule {self.schedule!r}", hint="linear or constant")
        if self.learn not in ("difference", "all", "teacher"):
            raise UsageError(f"unknown part to learn {self.learn!r}", hint="difference or all")
        for name, chosen, known in (
            ("device", self.device, ("auto", "cpu", "cuda", "mps")),
            ("dtype", self.dtype, ("auto", "fp32", "bf16")),
        ):
            if chosen not in known:
                raise UsageError(f"unknown {name} {chosen!r}", hint=", ".join(known))
        if self.adapter is not None:
            adapter_kind(self.adapter)
            if self.train_embeddings:
                raise UsageError(
                    "an adapter leaves embeddings and head alone", hint="leave out one of the two"
                )
        if self.optimizer not in ("apollo", "adamw"):
            raise UsageError(f"unknown optimizer {self.optimizer!r}", hint="apollo or adamw")

    def epochs_over(self, rows: int) -> int:
        """How often a run sees each of so many rows: strength should not depend on how many there are."""
        if self.epochs is not None:
            return self.epochs
        return (
            LEAST if self.learn == "all" else min(MOST, max(LEAST, round(STEPS * self.batch / max(rows, 1))))
        )

    def steps(self, rows: int) -> int:
        """How many steps a run over that many rows takes."""
        steps = _planned(rows, self.epochs_over(rows), self.batch)
        return min(steps, self.max_steps) if self.max_steps is not None else steps

    def lr_at(self, step: int, steps: int) -> float:
        """Learning rate of step 0 to steps - 1: linear warm-up, then linear to zero, or constant."""
        warm = round(self.warmup * steps)
        if step < warm:
            return self.lr * (step + 1) / (warm + 1)
        if self.schedule == "constant":
            return self.lr
        return self.lr * (steps - step) / (steps - warm)


@dataclass(frozen=True, slots=True)
class Extent:
    """How far a run got: `steps` of those that all epochs would take, how many of the rows were in them, and how
    often, on average, as a fraction of an epoch."""

    steps: int
    planned: int
    rows_seen: int
    epochs: float

    @staticmethod
    def of(rows: int, epochs: int, batch: int, steps: int) -> Extent:
        """Every epoch has all rows once; its last batch may be smaller."""
        whole, rest = divmod(steps, math.ceil(rows / batch))
        shown = whole * rows + min(rest * batch, rows)
        return Extent(steps, _planned(rows, epochs, batch), min(shown, rows), shown / rows)


def adapter_kind(adapter: str) -> tuple[str, int]:
    """Kind and rank. Raises UsageError."""
    kind, _, rank = adapter.partition(":")
    if kind not in ADAPTERS or not rank.isdecimal() or not 1 <= int(rank) <= 1024:
        raise UsageError(
            f"no adapter {adapter!r}", hint=f"KIND:RANK, as lora:16; kinds: {', '.join(ADAPTERS)}"
        )
    return kind, int(rank)


def _planned(rows: int, epochs: int, batch: int) -> int:
    return epochs * math.ceil(rows / batch)
