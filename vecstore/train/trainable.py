"""What of a model is trained, under the names that its checkpoint has for it; and how far it moved."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import CheckpointRefused
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import to_f32

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["deltas_of", "trainable"]


def trainable(
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


def deltas_of(names: Mapping[str, torch.nn.Parameter], weights: Checkpoint) -> dict[str, NDArray[np.float32]]:
    """τ by name; tensors that did not move are left out."""
    from pv.vecstore.train.sharded import whole

    deltas: dict[str, NDArray[np.float32]] = {}
    for name, p in sorted(names.items()):
        spec = weights.specs[name]
        stored = np.frombuffer(weights.read(name), storage_dtype(spec.dtype)).reshape(spec.shape)
        delta = whole(p.detach()).cpu().numpy() - to_f32(stored, spec.dtype)
        if delta.any():
            deltas[name] = delta
    return deltas
