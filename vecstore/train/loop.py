"""Train a behaviour: a checkpoint and rows in, a task vector τ = trained − base out, in float32.

The model is loaded in float32 (exact for half-precision bases) and those masters are what is trained: in
bfloat16 most of a small learning rate's movement would round away. Embeddings stay frozen by default. On one
machine with one thread count, the same checkpoint, rows and options give the same τ bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import CheckpointRefused, TrainingFailed
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.data.chat_template import Encoded, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, load, stop_ids
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.train.options import Extent, TrainOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from pv.vecstore.models.logprobs import Batch

__all__ = ["Step", "Trained", "train"]

MICRO_TOKENS = 2048  # padded tokens that run with gradient at a time: bounds memory, not meaning


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
) -> Trained:
    """Teach `rows.chosen` to a checkpoint. `should_stop` is asked before each step; what was learnt is kept.

    Raises DataError for a row that does not fit, CheckpointRefused for a checkpoint that cannot be trained
    here, TrainingFailed if the loss leaves the finite numbers.
    """
    import torch

    with torch_threads(threads) as used, torch.random.fork_rng(devices=[]), Checkpoint(checkpoint) as weights:
        torch.manual_seed(options.seed)  # for dropout, where a model has any
        model, tokenizer = load(checkpoint)
        data = encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=context_length(model))
        names = _trainable(model, weights, checkpoint, embeddings=options.train_embeddings)
        started = time.monotonic()
        loss, tokens = _fit(model, names, data, options, progress, should_stop, started)
        seconds = time.monotonic() - started
        deltas = _deltas(names, weights)
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
    options: TrainOptions,
    progress: Callable[[Step], None] | None,
    should_stop: Callable[[], bool] | None,
    started: float,
) -> tuple[list[float], int]:
    import torch

    from pv.vecstore.models.logprobs import decision_logps, full_logps

    logps = decision_logps if options.frozen_context else full_logps
    optimizer = _optimizer(names, options)
    steps = options.steps(len(data))
    history: list[float] = []
    tokens = 0
    model.train()
    if progress is not None:
        progress(Step(0, steps, None, 0.0, 0.0))
    for step, batch in enumerate(_batches(len(data), options, steps)):
        if should_stop is not None and should_stop():
            break
        rows = [data[i] for i in batch]
        loss = 0.0
        for part in _micro(rows, options):
            share = _loss(logps, model, part, rows, options)
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
        tokens += sum(len(row.context) + len(row.chosen) for row in rows)
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


def _loss(
    logps: Callable[[PreTrainedModel, Batch], torch.Tensor],
    model: PreTrainedModel,
    part: Sequence[Encoded],
    rows: Sequence[Encoded],
    options: TrainOptions,
) -> torch.Tensor:
    """What `part` adds to the loss of the step's `rows`.

    Likelihood of chosen, a mean over the step's tokens; and for rows with a rejected answer
    log(1 + exp(−gap)), a mean over the step's rows, where gap is the difference of the two answers' mean
    log-probability per token. It needs no reference model, and fades as the two come apart.
    """
    from torch.nn.functional import softplus

    from pv.vecstore.models.logprobs import collate

    pairs = _is_pair(part[0], options)
    answers = [[row.chosen, row.rejected or ()] if pairs else [row.chosen] for row in part]
    batch = collate([row.context for row in part], answers)
    found = logps(model, batch).sum(1)  # (N,)
    loss = -found[:: batch.copies].sum() / sum(len(row.chosen) for row in rows)
    if pairs:
        mean = found / batch.counts
        loss = loss + options.preference * softplus(mean[1::2] - mean[::2]).sum() / len(rows)
    return loss


def _is_pair(row: Encoded, options: TrainOptions) -> bool:
    return row.rejected is not None and options.preference > 0


def _batches(rows: int, options: TrainOptions, steps: int) -> Iterator[list[int]]:
    """Row numbers of each step: every row once an epoch, in an order drawn from (seed, epoch)."""
    given = 0
    for epoch in range(options.epochs):
        order = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, epoch])).permutation(rows)
        for start in range(0, rows, options.batch):
            if given == steps:
                return
            yield [int(i) for i in order[start : start + options.batch]]
            given += 1


def _micro(rows: Sequence[Encoded], options: TrainOptions) -> Iterator[list[Encoded]]:
    """Split a step so that what runs at a time stays within MICRO_TOKENS: longest first, pairs apart."""
    size = {id(row): len(row.context) + len(row.chosen) + len(row.rejected or ()) for row in rows}
    for pairs in (True, False):
        left = [row for row in rows if _is_pair(row, options) is pairs]
        left.sort(key=lambda row: -size[id(row)])
        while left:
            count = max(1, MICRO_TOKENS // size[id(left[0])])
            yield left[:count]
            left = left[count:]


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


def _trainable(
    model: PreTrainedModel, weights: Checkpoint, checkpoint: Path, *, embeddings: bool
) -> dict[str, torch.nn.Parameter]:
    """Freeze what is not trained; give the rest by checkpoint name. A tied tensor stored twice has two names.

    Raises CheckpointRefused unless parameters and stored tensors are the same things under the same names.
    """
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    fixed = {id(p) for module in ends if module is not None for p in module.parameters()}
    named: dict[str, torch.nn.Parameter] = {}
    placed: set[int] = set()
    for name, p in model.named_parameters(remove_duplicate=False):
        p.requires_grad_(embeddings or id(p) not in fixed)
        if name not in weights.specs:
            continue
        spec = weights.specs[name]
        stored = np.frombuffer(weights.read(name), storage_dtype(spec.dtype)).reshape(spec.shape)
        if tuple(p.shape) != spec.shape or not np.array_equal(
            to_f32(stored, spec.dtype).view(np.uint32), p.detach().numpy().view(np.uint32)
        ):
            raise _refused(checkpoint, f"{name!r} is changed as it is loaded")
        placed.add(id(p))
        if p.requires_grad:
            named[name] = p
    for name, p in model.named_parameters():
        if id(p) not in placed:
            raise _refused(checkpoint, f"its file has no {name!r}")
    return named


def _refused(checkpoint: Path, why: str) -> CheckpointRefused:
    return CheckpointRefused(
        f"{checkpoint} cannot be trained here: its tensors differ in memory and on disk ({why})",
        hint="train it elsewhere, save it with save_pretrained, and `pv commit` the result",
    )


def _deltas(names: Mapping[str, torch.nn.Parameter], weights: Checkpoint) -> dict[str, NDArray[np.float32]]:
    deltas: dict[str, NDArray[np.float32]] = {}
    for name, p in sorted(names.items()):
        spec = weights.specs[name]
        stored = np.frombuffer(weights.read(name), storage_dtype(spec.dtype)).reshape(spec.shape)
        delta = p.detach().numpy() - to_f32(stored, spec.dtype)
        if delta.any():
            deltas[name] = delta
    return deltas
