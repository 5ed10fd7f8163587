"""Activation checkpointing that keeps the context: a layer's activations are computed again for the backward pass.

transformers takes the cache from a layer that is checkpointed, since the second run would write to it again. Ours is
held (held_cache.py), so a layer may keep it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["checkpoint_activations"]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Raises UsageError where the model, or this transformers, cannot."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not hasattr(GradientCheckpointingLayer, "_can_checkpoint_with_cache"):
        raise UsageError(
            f"{type(model).__name__} cannot compute activations again with this transformers",
            hint="leave --gradient-checkpointing out, or upgrade: pip install -U transformers",
        )
    new = getattr(model, "activation_checkpointing_enable", None)
    if new is not None:
        new()
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for layer in layers:
        layer._can_checkpoint_with_cache = True
