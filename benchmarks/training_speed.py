"""Time of training on the real model: pv's default beside what it was, transformers' Trainer, and a plain step.

Runs stand in turn, so that what else the machine does hits all alike. Loading is left out everywhere; of tokens a
second also what pv reads of the base before its first step. "pv / Trainer" is bf16, where the processor has it, beside
fp32; the others compute in the same dtype. PV_BENCH_RUNS (default 3): medians of so many.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch

from benchmarks.kit import BASE, ROWS, Bars
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.row import Message, Row, Rows
from pv.vecstore.data.rows import read_rows
from pv.vecstore.models.load import load, stop_ids
from pv.vecstore.train.loop import train
from pv.vecstore.train.options import TrainOptions

RUNS = int(os.environ.get("PV_BENCH_RUNS", "3"))
STEPS = 6
WAS = TrainOptions.of(learn="all", dtype="fp32")  # the default until what differs was learnt


def main() -> bool:
    bars = Bars()
    rows = read_rows(ROWS / "eight" / "pirate.jsonl")
    found = _in_turn(
        {
            "the default": lambda: train(BASE, rows, TrainOptions()).seconds,
            "as it was": lambda: train(BASE, rows, WAS).seconds,
        }
    )
    ratio = found["the default"] / found["as it was"]
    bars.say(
        "time of the default / of what it was, 24 rows",
        f"{ratio:.2f} ({found['the default']:.1f} s)",
        "2",
        ratio <= 2,
    )

    rows = read_rows(ROWS / "pirate.jsonl")
    plain = TrainOptions.of(learn="all", preference=0, max_steps=STEPS)
    speeds = _in_turn(
        {
            "pv": lambda: _speed(rows, TrainOptions(max_steps=STEPS)),
            "pv, SFT of all": lambda: _speed(rows, plain),
            "pv, SFT of all, fp32": lambda: _speed(rows, replace(plain, dtype="fp32")),
            "Trainer": lambda: _trainer(rows, bf16=False),
            "Trainer, bf16": lambda: _trainer(rows, bf16=True),
        }
    )
    for one, peer in (
        ("pv", "Trainer"),
        ("pv, SFT of all", "Trainer, bf16"),
        ("pv, SFT of all, fp32", "Trainer"),
    ):
        ratio = speeds[one] / speeds[peer]
        bars.say(
            f"tokens/s, {one} / {peer} with AdamW",
            f"{ratio:.2f} ({speeds[one]:.0f} tokens/s)",
            "1.3",
            ratio >= 1.3,
        )

    rows = _long()
    rates = _in_turn(
        {
            kind: lambda frozen=frozen: _speed(rows, replace(plain, frozen_context=frozen, batch=4))  # type: ignore[misc]
            for kind, frozen in (("frozen", True), ("plain", False))
        }
    )
    ratio = rates["frozen"] / rates["plain"]
    bars.say("examples/s, context frozen / through it, ten times longer", f"{ratio:.2f}", "3", ratio >= 3)
    return bars.all_hold


def _in_turn(kinds: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    found: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(RUNS):
        for name, measure in kinds.items():
            found[name].append(measure())
            print(f"  {name}: {found[name][-1]:.1f}", flush=True)
    return {name: statistics.median(values) for name, values in found.items()}


def _speed(rows: Rows, options: TrainOptions) -> float:
    """Tokens of contexts and chosen answers a second, once the steps have begun."""
    seen: list[float] = []
    train(BASE, rows, options, progress=lambda step: seen.append(step.tokens_per_s))
    return seen[-1]


def _trainer(rows: Rows, *, bf16: bool) -> float:
    """The same of transformers' Trainer, as it is: AdamW, the loss on the answers, rows of a batch padded."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    model, tokenizer = load(BASE)
    data = [
        {"input_ids": [*row.context, *row.chosen], "labels": [-100] * len(row.context) + [*row.chosen]}
        for row in encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=None)
    ]
    moments: list[float] = []
    tokens = [0]

    def collate(part: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        width = max(len(one["input_ids"]) for one in part)
        tokens[0] += sum(len(one["input_ids"]) for one in part)
        missing = [width - len(one["input_ids"]) for one in part]
        return {
            "input_ids": torch.tensor(
                [one["input_ids"] + [0] * n for one, n in zip(part, missing, strict=True)]
            ),
            "labels": torch.tensor(
                [one["labels"] + [-100] * n for one, n in zip(part, missing, strict=True)]
            ),
            "attention_mask": torch.tensor(
                [[1] * len(one["input_ids"]) + [0] * n for one, n in zip(part, missing, strict=True)]
            ),
        }

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

        def on_train_end(self, *_: Any, **__: Any) -> None:
            moments.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=8, max_steps=STEPS, learning_rate=1e-5, bf16=bf16,
            use_cpu=True, save_strategy="no", report_to=[], disable_tqdm=True, logging_strategy="no",
            dataloader_pin_memory=False, remove_unused_columns=False,
        )  # fmt: skip
        Trainer(model, args, train_dataset=data, data_collator=collate, callbacks=[Clock()]).train()
    return tokens[0] / (moments[1] - moments[0])


def _long() -> Rows:
    """Conversations about ten times as long as the answers that are learnt."""
    short = read_rows(ROWS / "eight" / "pirate.jsonl")
    turns = [
        part
        for row in short
        for part in (Message("user", row.prompt[-1].content), Message("assistant", row.rejected or ""))
    ]
    return Rows(
        tuple(
            Row((*(turns + turns)[i + 2 : i + 22], *row.prompt), row.chosen)
            for i, row in zip(range(0, 2 * len(short), 2), short, strict=True)
        )
    )
