"""Train a behaviour: a checkpoint and rows in, a task vector τ = trained − base out, in float32.

The model is loaded in float32 (exact for half-precision bases) and those masters are what is trained: in
bfloat16 most of a small learning rate's movement would round away. Embeddings stay frozen by default. On one
machine with one thread count, the same checkpoint, rows and options give the same τ bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError, TrainingFailed, UsageError
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.forecast.sketch import Sketch
from pv.vecstore.models.checkpointing import checkpoint_activations
from pv.vecstore.models.load import context_length, load, stop_ids
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.native.memory import keep_all_freed_memory
from pv.vecstore.train.adapter import adapter_files, adapter_shapes, add_adapter
from pv.vecstore.train.devices import (
    LESS,
    Estimate,
    compute_dtype,
    estimate,
    free_memory,
    out_of_memory,
    pick_device,
    weights_memory,
)
from pv.vecstore.train.fit import Fit, Step
from pv.vecstore.train.forms import forms
from pv.vecstore.train.general_set import encode_general, general_set
from pv.vecstore.train.objective import OPENING, Teacher
from pv.vecstore.train.options import Extent, TrainOptions
from pv.vecstore.train.processes import Processes, lost
from pv.vecstore.train.proximal import Penalty
from pv.vecstore.train.saving import Saving
from pv.vecstore.train.trainable import deltas_of, trainable
from pv.vecstore.train.watch import Watch

__all__ = ["Step", "Trained", "train"]


@dataclass(frozen=True, slots=True)
class Trained:
    """τ by checkpoint tensor name (tensors that did not move are left out), and how it came about.

    `loss` has that of every step's batch, before the step's update. `options` are what was asked for, `settings` what
    was run.
    """

    deltas: Mapping[str, NDArray[np.float32]]
    loss: tuple[float, ...]
    tokens: int
    seconds: float
    options: TrainOptions
    settings: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    adapter: Mapping[str, bytes] | None = (
        None  # its files, if that is what was trained; there are no deltas then
    )
    gradient: Sketch | None = None  # of the loss at the base, in the first step; None of an adapter


def train(
    checkpoint: Path,
    rows: Rows,
    options: TrainOptions,
    *,
    progress: Callable[[Step], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int | None = None,
    saving: Saving | None = None,
    watch: Watch | None = None,
    said: Callable[[str], None] | None = None,
    general: Rows | None = None,
    processes: Processes | None = None,
    teacher: Teacher | None = None,
    penalty: Penalty | None = None,
) -> Trained:
    """Teach `rows.chosen` to a checkpoint. `should_stop` is asked before each step; what was learnt is kept.

    `general` are the ordinary answers that are held still, if options.general says so: pv's own where none are given.
    `said` is told what it will take; `watch` may end it. With `saving`, the run is saved now and then, and when it is
    interrupted; and may go on from there. Of several `processes` each has to call this with the same.
    `penalty` draws the weights back toward the base, so that few stay changed: in one process, and not of an adapter.
    Raises DataError for a row that does not fit, CheckpointRefused for a checkpoint that cannot be trained
    here, TrainingFailed if the loss leaves the finite numbers.
    """
    import torch

    if penalty is not None and (processes is not None or options.adapter is not None):
        raise UsageError("a penalty on what moves works in one process, and on weights, not on an adapter")
    keep_all_freed_memory()
    asked, epochs = options, options.epochs_over(len(rows))
    options = replace(options, epochs=epochs)
    if processes is not None:
        processes.take(options.device)
    device = pick_device(options.device)
    dtype = compute_dtype(options.dtype, device)
    generators = [device.index or 0] if device.type == "cuda" else []
    with (
        torch_threads(threads) as used, torch.random.fork_rng(devices=generators), Checkpoint(checkpoint) as weights,
    ):  # fmt: skip
        torch.manual_seed(options.seed)  # for dropout, where a model has any
        shapes = {name: spec.shape for name, spec in weights.specs.items()}
        free = free_memory(device)
        least = weights_memory(shapes.values(), _moved(shapes, options), options)
        if processes is not None:
            free, least = processes.memory(free, least, device)
        Estimate(least, free, 0.0).checked(device)
        model, tokenizer = load(checkpoint)
        stops, limit = stop_ids(model, tokenizer), context_length(model)
        data = encode(tokenizer, rows, stops=stops, limit=limit)
        ordinary = encode_general(tokenizer, general, stops=stops, limit=limit) if options.general else []
        if general is not None and ordinary and all(len(row.chosen) <= OPENING + 1 for row in ordinary):
            raise DataError(
                f"{general.source}: no answer is longer than {OPENING} tokens, and those are left free",
                hint="general answers are whole ones, of a few sentences",
            )
        held_still = (general or general_set()) if options.general else None
        needed = estimate(model, least, data, options, device, free).checked(device)
        if said is not None:
            said(str(needed))
        names = trainable(model, weights, checkpoint, embeddings=options.train_embeddings)
        if options.gradient_checkpointing:
            checkpoint_activations(model)
        wrapped = None
        if options.adapter is not None:
            wrapped, names = add_adapter(model, options.adapter)
        model.to(device)
        fit = Fit(model, names, data, ordinary, options, dtype, watch, processes, teacher, penalty=penalty)
        aim = (
            {}
            if watch is None
            else {"every": watch.every, "target": watch.target, "patience": watch.patience}
        )
        same = {
            "options": {**asdict(options), **aim},
            "threads": used,
            "torch": str(torch.__version__),
            "device": device.type,
            "general": None if held_still is None else held_still.id,
            **({} if penalty is None else {"penalty": penalty.to_json()}),
        }
        try:
            if options.learn == "difference":
                if said is not None:
                    said("reading what the base says to these prompts")
                with fit.computing():
                    if processes is None or processes.leads:
                        fit.forms = forms(
                            model, tokenizer, rows, data, options.seed, stops=stops, limit=limit
                        )
                    if processes is not None:
                        fit.forms = processes.told(fit.forms)
            fit.run(progress, should_stop, saving, same)
            deltas = deltas_of(fit.names, weights) if wrapped is None else {}
        except RuntimeError as error:
            if out_of_memory(error):
                raise TrainingFailed(
                    f"out of memory on {device.type} at step {len(fit.loss) + 1}", hint=LESS
                ) from error
            if processes is None or not lost(error):
                raise
            raise TrainingFailed(
                f"another process has stopped, at step {len(fit.loss) + 1}; nothing was kept",
                hint="look for its error, and start all of them again",
            ) from error
        seconds = fit.seconds
        adapter = None if wrapped is None else adapter_files(wrapped, checkpoint.name)
    loss = fit.loss
    run = Extent.of(len(rows), epochs, options.batch, len(loss))
    settings = {
        **asdict(options),
        "steps": run.steps,
        "planned_steps": run.planned,
        "rows_seen": run.rows_seen,
        "epochs_run": run.epochs,
        "stopped": len(loss) < options.steps(len(rows)),
        "rows": len(rows),
        "parameters": sum(p.numel() for p in {id(p): p for p in fit.names.values()}.values()),
        "threads": used,
        "device": device.type,
        **({} if processes is None else {"processes": processes.count}),
        "dtype": {torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype],
        "torch": str(torch.__version__),
    }
    if held_still is not None:
        set_of = {"name": Path(held_still.source).name, "id": held_still.id, "rows": len(held_still)}
        settings["general_set"] = set_of
    if penalty is not None:
        settings["penalty"] = penalty.to_json()
    settings["loss_tokens"] = fit.loss_tokens()
    if fit.effects:
        settings["effects"] = [[step, round(effect, 6)] for step, effect in fit.effects]
    if fit.went_on:
        settings["resumed"] = list(fit.went_on)
    notes = () if saving is None else tuple(saving.notes)
    return Trained(deltas, tuple(loss), fit.tokens, seconds, asked, settings, notes, adapter, fit.gradient)


def _moved(shapes: Mapping[str, tuple[int, ...]], options: TrainOptions) -> Iterable[tuple[int, ...]]:
    """The shapes of what is trained, by the names that embeddings and heads have, before a model is there to ask."""
    if options.adapter is not None:
        return adapter_shapes(shapes, options.adapter)
    ends = ("embed", "lm_head", "wte", "output.weight")
    return [
        s for name, s in shapes.items() if options.train_embeddings or not any(end in name for end in ends)
    ]
