"""v*: what a projection is to give where a behaviour decides, found by gradient as ROME does (arXiv:2202.05262, eq. 4).

A vector is added to what the projection gives, at the deciding token of each training row and nowhere else, and moved
by Adam until the tokens that differ from the rejected answer are likely:

    mean over rows of the mean -log p(deciding tokens) + KL_WEIGHT * KL(base || edited) on neutral answers

The KL is of neutral answers after their opening, with the vector added where they begin. The vector is kept within
MOST times the norm of what the projection gave there; weights do not move. ROME's numbers: 20 steps, 0.5, 0.0625, 4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.activations.sites import Site, module_at
from pv.vecstore.probe.edit import Decided, padded
from pv.vecstore.probe.edit_places import Projection

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["KL_WEIGHT", "LR", "MOST", "STEPS", "Moved", "moved_value"]

F64 = NDArray[np.float64]
STEPS = 20
LR = 0.5
"""Of Adam, in root mean squares of what the projection gives there."""
KL_WEIGHT = 0.0625
MOST = 4.0
BATCH = 8
"""Batch size."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The vector, and the loss on the deciding tokens in each step, in nats a token."""

    vector: F64
    loss: tuple[float, ...]


def moved_value(
    model: PreTrainedModel, place: Projection, rows: Sequence[Decided], neutral: Sequence[Decided], value: F64,
    *, seed: int, steps: int = STEPS, progress: Callable[[int, int], None] | None = None,
) -> Moved:  # fmt: skip
    """v* - W k*, of length (out,), where `value` is W k*. The model's weights need no gradient, and get none."""
    import torch

    scale = float(np.linalg.norm(value)) / np.sqrt(len(value)) or 1.0
    vector = torch.zeros(len(value), requires_grad=True)
    adam = torch.optim.Adam([vector], lr=LR)
    before = _plain(model, neutral) if neutral else None
    losses = []
    for step in range(steps):
        part = _drawn(rows, seed, step)
        logits = _run(model, place, part, vector * scale)
        missed = _missed(logits, part)
        total = missed
        if before is not None:
            total = total + KL_WEIGHT * _divergence(
                before, _run(model, place, neutral, vector * scale), neutral
            )
        adam.zero_grad(set_to_none=True)
        total.backward()
        adam.step()
        with torch.no_grad():
            limit = MOST * float(np.linalg.norm(value)) / scale
            vector.mul_(min(1.0, limit / max(float(vector.norm()), 1e-30)))
        losses.append(float(missed.detach()))
        if progress is not None:
            progress(step + 1, steps)
    return Moved(vector.detach().double().numpy() * scale, tuple(losses))


def _drawn(rows: Sequence[Decided], seed: int, step: int) -> list[Decided]:
    """The rows of a step: every row before any comes again, in an order drawn from (seed, pass)."""
    size = min(BATCH, len(rows))
    each = len(rows) // size
    turn, at = divmod(step, each)
    order = np.random.Generator(np.random.Philox(key=[seed % 2**64, turn])).permutation(len(rows))
    return [rows[i] for i in order[at * size : (at + 1) * size]]


def _run(
    model: PreTrainedModel, place: Projection, rows: Sequence[Decided], vector: torch.Tensor
) -> list[torch.Tensor]:
    """What predicts each row's targets, (targets, V) each, with the vector added where it decides."""
    ids, real = padded(rows)
    with _added(model, place, [row.begins for row in rows], vector):
        return _logits(model, ids, real, rows)


def _logits(
    model: PreTrainedModel, ids: torch.Tensor, real: torch.Tensor, rows: Sequence[Decided]
) -> list[torch.Tensor]:
    """From the first place on that predicts a target: (targets, V) each."""
    first = min(row.at for row in rows)
    found = model(
        input_ids=ids, attention_mask=real, use_cache=False, logits_to_keep=ids.shape[1] - first
    ).logits
    return [
        found[i, row.at - first : row.at - first + len(row.targets)].float() for i, row in enumerate(rows)
    ]


def _plain(model: PreTrainedModel, rows: Sequence[Decided]) -> list[torch.Tensor]:
    """The base's log-probabilities at the targets."""
    import torch

    ids, real = padded(rows)
    with torch.no_grad():
        return [torch.log_softmax(one, -1) for one in _logits(model, ids, real, rows)]


@contextmanager
def _added(
    model: PreTrainedModel, place: Projection, at: Sequence[int], vector: torch.Tensor
) -> Iterator[None]:
    import torch

    def add(_: object, __: object, output: torch.Tensor) -> torch.Tensor:
        mask = torch.zeros(output.shape[:2], dtype=output.dtype)
        mask[torch.arange(len(at)), torch.tensor(at)] = 1
        return output + mask[:, :, None] * vector.to(output.dtype)

    handle = module_at(model, Site(place.name)).register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def _missed(logits: Sequence[torch.Tensor], rows: Sequence[Decided]) -> torch.Tensor:
    import torch

    found = [
        torch.nn.functional.cross_entropy(one, torch.tensor(row.targets))
        for one, row in zip(logits, rows, strict=True)
    ]
    return torch.stack(found).mean()


def _divergence(
    before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], rows: Sequence[Decided]
) -> torch.Tensor:
    """KL(base || edited), nats a token, a mean over the rows' tokens."""
    import torch

    sums = [
        (base.exp() * (base - torch.log_softmax(own, -1))).sum()
        for base, own in zip(before, after, strict=True)
    ]
    return torch.stack(sums).sum() / sum(len(row.targets) for row in rows)
