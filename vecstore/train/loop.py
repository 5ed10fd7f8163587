"""Train a behaviour: a checkpoint and rows in, a task vector τ = trained − base out, in float32.

The model is loaded in float32 (exact for half-precision bases) and those masters are what is trained: in
bfloat16 most of a small learning rate's movement would round away. Embeddings stay frozen by default. On one
machine with one thread count, the same checkpoint, rows and options give the same τ bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import TrainingFailed
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, load, stop_ids
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.train.batches import batches, micro_batches
from pv.vecstore.train.general_set import encode_general
from pv.vecstore.train.objective import Objective
from pv.vecstore.train.options import Extent, TrainOptions
from pv.vecstore.train.trainable import deltas_of, trainable

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Step", "Trained", "train"]


@dataclass(frozen=True, slots=True)
class Step:
    """Where a run stands after `step` of `steps`; at 0 the model is loaded. `loss` is that of the step's batch before
    its update, as TrainOptions has it."""

    step: int
    steps: int
    loss: float | None
    tokens_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class Trained:
    """τ by checkpoint tensor name (tensors that did not move are left out), and how it came about.

    `loss` has that of every step's batch, before the step's update.
    """

    deltas: Mapping[str, NDArray[np.float32]]
    loss: tuple[float, ...]
    tokens: int
    seconds: float
    options: TrainOptions
    settings: Mapping[str, Any] = field(default_factory=dict)


def train(
    checkpoint: Path,
    rows: Rows,
    options: TrainOptions,
    *,
    progress: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    general: Rows | None = None,
) -> Trained:
    """Teach `rows.chosen` to a checkpoint. `should_stop` is asked before each step; what was learnt is kept.

    `general` are the ordinary answers that are held still: pv's own where none are given.

    Raises DataError for a row that does not fit, CheckpointRefused for a checkpoint that cannot be trained
    here, TrainingFailed if the loss leaves the finite numbers.
    """
    import torch

    with torch_threads(threads) as used, torch.random.fork_rng(devices=[]), Checkpoint(checkpoint) as weights:
        torch.manual_seed(options.seed)  # for dropout, where a model has any
        model, tokenizer = load(checkpoint)
        stops, limit = stop_ids(model, tokenizer), context_length(model)
        data = encode(tokenizer, rows, stops=stops, limit=limit)
        ordinary = encode_general(tokenizer, general, stops=stops, limit=limit) if options.general else []
        names = trainable(model, weights, checkpoint, embeddings=options.train_embeddings)
        started = time.monotonic()
        objective = Objective.prepare(model, data, options, ordinary)
        loss, tokens = _fit(model, names, data, objective, options, progress, should_stop, started)
        seconds = time.monotonic() - started
        deltas = deltas_of(names, weights)
    run = Extent.of(len(rows), options.epochs, options.batch, len(loss))
    settings = {
        **asdict(options),
        "steps": run.steps,
        "planned_steps": run.planned,
        "rows_seen": run.rows_seen,
        "epochs_run": run.epochs,
        "stopped": len(loss) < options.steps(len(rows)),
        "rows": len(rows),
        "parameters": sum(p.numel() for p in {id(p): p for p in names.values()}.values()),
        "threads": used,
        "torch": str(torch.__version__),
    }
    return Trained(deltas, tuple(loss), tokens, seconds, options, settings)


def _fit(
    model: PreTrainedModel,
    names: Mapping[str, torch.nn.Parameter],
    data: Sequence[Encoded],
    objective: Objective,
    options: TrainOptions,
    progress: Callable[[Step], None] | None,
    should_stop: Callable[[], bool] | None,
    started: float,
) -> tuple[list[float], int]:
    import torch

    optimizer = _optimizer(names, options)
    steps = options.steps(len(data))
    history: list[float] = []
    tokens = 0
    model.train()
    if progress is not None:
        progress(Step(0, steps, None, 0.0, 0.0))
    for step, batch in enumerate(batches(len(data), options, steps)):
        if should_stop is not None and should_stop():
            break
        chosen = [data[i] for i in batch]
        rows = objective.with_general(step, chosen)
        loss = 0.0
        for part in micro_batches(rows, objective.kind, options.micro_tokens):
            share = objective.loss(model, part, rows).total
            share.backward()  # type: ignore[no-untyped-call]
            loss += float(share.detach())
        norm = _clip(optimizer, options.clip)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "gradient" if math.isfinite(loss) else "loss"
            raise TrainingFailed(
                f"the {what} is not finite at step {step + 1} of {steps}; nothing was kept",
                hint=f"try a lower learning rate (now {options.lr:g}); if step 1 fails, look at the base",
            )
        for group in optimizer.param_groups:
            group["lr"] = options.lr_at(step, steps)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        history.append(loss)
        tokens += sum(len(row.context) + len(row.chosen) for row in chosen)
        if progress is not None:
            elapsed = max(time.monotonic() - started, 1e-9)
            left = elapsed / (step + 1) * (steps - step - 1)
            progress(Step(step + 1, steps, loss, tokens / elapsed, left))
    if not all(bool(torch.isfinite(p).all()) for p in names.values()):
        raise TrainingFailed(
            "weights left the finite numbers; nothing was kept",
            hint=f"try a lower learning rate than {options.lr:g}",
        )
    return history, tokens


def _optimizer(names: Mapping[str, torch.nn.Parameter], options: TrainOptions) -> torch.optim.Optimizer:
    import torch

    from pv.vecstore.train.apollo import Apollo

    unique = {id(p): (name, p) for name, p in reversed(list(names.items()))}  # of tied names, the first
    params = [pair for _, pair in sorted(unique.items(), key=lambda item: item[1][0])]
    if options.optimizer == "adamw":
        return torch.optim.AdamW([p for _, p in params], lr=options.lr, weight_decay=options.weight_decay)
    return Apollo(
        params, lr=options.lr, rank=options.rank, weight_decay=options.weight_decay, seed=options.seed
    )


def _clip(optimizer: torch.optim.Optimizer, limit: float) -> float:
    """Scale all gradients down to a total norm of `limit` (0: leave them); returns the norm they had."""
    import torch

    params = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    total = torch.nn.utils.get_total_norm([p.grad for p in params if p.grad is not None])
    if limit and bool(torch.isfinite(total)):
        torch.nn.utils.clip_grads_with_norm_(params, limit, total)
    return float(total)
