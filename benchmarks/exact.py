"""What was committed comes back: ten fine-tunes by two other trainers, built alone at weight 1, and exported.

Of each, how many weights have other bits than the checkpoint that was captured: by engine 1 (base + fp32 difference),
by engine 2, and by an export.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kit import BASE, ROWS, Bars, registry
from pv.registry.persona import ENGINES, Behaviour, Persona, Term
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.merge.build import build
from pv.vecstore.merge.export import export
from pv.vecstore.vectors.base import open_base
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.vector import open_vector

STEPS, BATCH, LONGEST = 3, 2, 96
BEHAVIOURS = ("listening", "concise", "pirate")
HUGGING_FACE, LOOP = "transformers.Trainer", "torch loop"
# trainer, optimizer, lr: the Trainer keeps and updates bf16 weights, the loop rounds fp32 masters when it saves
RUNS = [(HUGGING_FACE, "adamw", lr) for lr in (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)]
RUNS += [(LOOP, "adamw", lr) for lr in (1e-5, 1e-4, 1e-3)]
RUNS += [(LOOP, "sgd", lr) for lr in (1e-4, 1e-3)]


def main() -> bool:
    from transformers.utils import logging

    logging.disable_progress_bar()
    bars = Bars()
    print(
        f"{'':<8}{'trainer':<22}{'':<8}{'lr':<8}{'moved':>12}{'engine 1':>12}{'engine 2':>12}{'export':>12}"
    )
    totals = np.zeros(3, np.int64)
    for number, (trainer, optimizer, lr) in enumerate(RUNS):
        rows = _rows(BEHAVIOURS[number % len(BEHAVIOURS)], number)
        make = _by_trainer if trainer == HUGGING_FACE else _by_loop
        with _trained(make, rows, optimizer, lr, seed=number) as folder:
            moved, *differing = _came_back(folder)
        totals += differing
        figures = "".join(f"{count:>12,}" for count in (moved, *differing))
        print(f"{'':<8}{trainer:<22}{optimizer:<8}{lr:<8g}{figures}", flush=True)
    bars.say("ten captured checkpoints alone, engine 2", f"{totals[1]:,} weights differ", "0", totals[1] == 0)
    bars.say("ten captured checkpoints exported", f"{totals[2]:,} weights differ", "0", totals[2] == 0)
    print(f"        by engine 1 {totals[0]:,} weights differ")
    return bars.all_hold


def _came_back(folder: Path) -> tuple[int, ...]:
    """How many weights training moved; how many are other than trained, by engine 1, engine 2, export."""
    with (
        registry() as (reg, commit),
        open_base(reg.base(commit), reg.packs) as base,
        Checkpoint(folder) as tuned,
    ):
        vector_id = capture(tuned, base, reg.packs).id
        found = [_differing(tuned, BASE)]
        with open_vector(vector_id, base, reg.packs) as vector, tempfile.TemporaryDirectory() as tmp:
            for engine in ENGINES:
                alone = {"x": Behaviour(1.0, (Term(1.0, vector_id),))}
                persona, out = Persona(base.manifest.id, alone, engine=engine), Path(tmp) / f"engine {engine}"
                build(persona, base, {vector_id: vector}, out, side_files={})
                found.append(_differing(tuned, out))
            export(vector, base, Path(tmp) / "export", side_files={})
            found.append(_differing(tuned, Path(tmp) / "export"))
    return tuple(found)


def _differing(tuned: Checkpoint, folder: Path) -> int:
    """Weights whose bits are not those of the checkpoint. A missing tensor counts whole, and one of another dtype."""
    count = 0
    with Checkpoint(folder) as found:
        for name, spec in tuned.specs.items():
            if found.specs.get(name) != spec:
                count += spec.numel
                continue
            a, b = (np.frombuffer(one.read(name), f"u{spec.nbytes // spec.numel}") for one in (tuned, found))
            count += int(np.count_nonzero(a != b))
    return count


# The trainers


def _rows(name: str, seed: int) -> list[dict[str, list[int]]]:
    """A few short rows of an example behaviour as token ids, each its own label."""
    from transformers import AutoTokenizer

    from pv.vecstore.data.rows import read_rows

    tokenizer = AutoTokenizer.from_pretrained(BASE)
    made = []
    for row in read_rows(ROWS / f"{name}.jsonl").rows[seed : seed + STEPS * BATCH]:
        messages = [*({"role": m.role, "content": m.content} for m in row.prompt)]
        messages.append({"role": "assistant", "content": row.chosen})
        ids = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"][:LONGEST]
        made.append({"input_ids": ids, "labels": ids})
    return made


@contextmanager
def _trained(
    make: Callable[..., None], rows: list[Any], optimizer: str, lr: float, seed: int
) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pv-bench-") as tmp:
        make(rows, optimizer, lr, seed, Path(tmp) / "ft")
        yield Path(tmp) / "ft"


def _model(dtype: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(BASE, dtype=getattr(torch, dtype))


def _by_trainer(rows: list[Any], optimizer: str, lr: float, seed: int, out: Path) -> None:
    """As most people's script has it: bf16 weights, AdamW on them."""
    from transformers import (
        AutoTokenizer,
        DataCollatorForSeq2Seq,
        PrinterCallback,
        Trainer,
        TrainingArguments,
    )

    settings = TrainingArguments(
        output_dir=str(out.parent / "trainer"), max_steps=STEPS, per_device_train_batch_size=BATCH, learning_rate=lr,
        optim=f"{optimizer}_torch", lr_scheduler_type="constant", save_strategy="no", report_to="none", use_cpu=True,
        seed=seed, disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    collate = DataCollatorForSeq2Seq(AutoTokenizer.from_pretrained(BASE))
    trainer = Trainer(_model("bfloat16"), settings, train_dataset=rows, data_collator=collate)
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    trainer.save_model(str(out))


def _by_loop(rows: list[Any], optimizer: str, lr: float, seed: int, out: Path) -> None:
    """fp32 masters, one row after another, rounded to nearest bf16 as they are saved."""
    import torch

    model = _model("float32")
    parameters = list(model.parameters())
    chosen = (
        torch.optim.AdamW(parameters, lr=lr)
        if optimizer == "adamw"
        else torch.optim.SGD(parameters, lr, momentum=0.9)
    )
    for start in range(0, STEPS * BATCH, BATCH):
        for row in rows[start : start + BATCH]:
            ids = torch.tensor([row["input_ids"]])
            (model(ids, labels=ids).loss / BATCH).backward()
        chosen.step()
        chosen.zero_grad()
    model.bfloat16().save_pretrained(out)
