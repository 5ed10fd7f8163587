"""Which heads the change of the margin comes from, to first order: <dM/dW, ΔW> of each head's weights.

The gradient is that of the mean margin, at weights between A and B: at the middle alone the error is of third order, as
that of the mean of both ends is, and half as large, for one pass backward instead of two. Of five rankings that were
measured (docs/probes.md), the heads at the top of this one recover most.
A head's share of the keys and values that it reads is theirs divided by the heads that read them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.probe.graft import swapped
from pv.vecstore.probe.parts import Part, Parts

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["MIDDLE", "attribution", "gradients"]

MIDDLE = (0.5,)
BATCH = 2  # the logits of whole texts are large


def attribution(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    other: Mapping[str, torch.Tensor],
    parts: Parts,
    rows: Rows,
    *,
    points: Sequence[float] = MIDDLE,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Nats of the mean margin, (H,), in the order of `parts.heads`. `points`: where between A (0) and B (1).

    `progress(done, total)` counts rows. The model is left as it was.
    """
    of = parts.of("head", "kv")
    names = {one.name for part in of for one in part.slices}
    own = dict(model.named_parameters())
    a = {name: own[name].data for name in own}
    sums = {name: a[name].new_zeros(a[name].shape) for name in names}
    for at, point in enumerate(points):
        between = {name: (other[name] if point == 1 else a[name].lerp(other[name], point)) for name in own}

        def told(done: int, total: int, at: int = at) -> None:
            if progress is not None:
                progress(at * total + done, len(points) * total)

        with swapped(model, between if point else a):
            for name, gradient in gradients(model, tokenizer, rows, names, told).items():
                sums[name] += gradient / len(points)
        del between
    scores = {part.key: _score(part, sums, a, other) for part in of}
    sharing: dict[tuple[int | None, int | None], int] = {}
    for part in parts.heads:
        sharing[part.layer, part.group] = sharing.get((part.layer, part.group), 0) + 1
    groups = {(part.layer, part.index): scores[part.key] for part in parts.of("kv")}
    return np.array(
        [
            scores[part.key] + groups[part.layer, part.group] / sharing[part.layer, part.group]
            for part in parts.heads
        ]
    )


def _score(
    part: Part,
    gradient: Mapping[str, torch.Tensor],
    a: Mapping[str, torch.Tensor],
    b: Mapping[str, torch.Tensor],
) -> float:
    return sum(
        float((one.of(gradient[one.name]) * (one.of(b[one.name]) - one.of(a[one.name]))).double().sum())
        for one in part.slices
    )


def gradients(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    names: set[str],
    progress: Callable[[int, int], None],
) -> dict[str, torch.Tensor]:
    """Of the mean margin, chosen against rejected, through prompt and answers."""
    import torch

    from pv.vecstore.models.logprobs import collate, full_logps

    data = encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=context_length(model))
    order = sorted(range(len(data)), key=lambda i: (len(data[i].context) + len(data[i].chosen), i))
    own = dict(model.named_parameters())
    asked = {name: parameter.requires_grad for name, parameter in own.items()}
    try:
        for name, parameter in own.items():
            parameter.requires_grad_(name in names)
            parameter.grad = None
        for start in range(0, len(order), BATCH):
            picked = [data[i] for i in order[start : start + BATCH]]
            batch = collate(
                [one.context for one in picked], [(one.chosen, one.rejected or ()) for one in picked]
            )
            with torch.enable_grad():
                logps = full_logps(model, batch).double().sum(1).view(-1, 2)
                (logps[:, 0] - logps[:, 1]).sum().div(len(data)).backward()
            progress(start + len(picked), len(data))
        return {name: gradient for name in names if (gradient := own[name].grad) is not None}
    finally:
        for name, parameter in own.items():
            parameter.grad = None
            parameter.requires_grad_(asked[name])
