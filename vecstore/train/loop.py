"""Train a behaviour: a checkpoint and rows in, a task vector τ = trained − base out, in float32.

The model is loaded in float32 (exact for half-precision bases) and those masters are what is trained: in
bfloat16 most of a small learning rate's movement would round away. Embeddings stay frozen by default. On one
machine with one thread count, the same checkpoint, rows and options give the same τ bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, load, stop_ids
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.train.fit import Fit, Step
from pv.vecstore.train.general_set import encode_general
from pv.vecstore.train.options import Extent, TrainOptions
from pv.vecstore.train.saving import Saving
from pv.vecstore.train.trainable import deltas_of, trainable

__all__ = ["Step", "Trained", "train"]


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
    notes: tuple[str, ...] = ()


def train(
    checkpoint: Path,
    rows: Rows,
    options: TrainOptions,
    *,
    progress: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    saving: Saving | None = None,
    general: Rows | None = None,
) -> Trained:
    """Teach `rows.chosen` to a checkpoint. `should_stop` is asked before each step; what was learnt is kept.

    `general` are the ordinary answers that are held still: pv's own where none are given.
    With `saving`, the run is saved now and then, and when it is interrupted; and may go on from there.
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
        fit = Fit(model, names, data, ordinary, options)
        same = {"options": asdict(options), "threads": used, "torch": str(torch.__version__)}
        fit.run(progress, should_stop, saving, same)
        seconds = fit.seconds
        deltas = deltas_of(names, weights)
    loss = fit.loss
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
    if fit.went_on:
        settings["resumed"] = list(fit.went_on)
    notes = () if saving is None else tuple(saving.notes)
    return Trained(deltas, tuple(loss), fit.tokens, seconds, options, settings, notes)
