"""A cache that is read and never written: the context's keys, values and recurrent states stay what they were.

transformers writes what a pass computes back into its cache, for the tokens to come. After the decision none come, and
writing does harm: a recurrent state is overwritten in place while the backward pass still needs it, and a layer that
activation checkpointing runs twice would find its own tokens in the cache.
"""

from __future__ import annotations

from functools import cache
from typing import Any

__all__ = ["hold", "is_recurrent", "was_read"]


def hold(context: Any, copies: int) -> None:
    """From now on the cache is read only; each row `copies` times, one after another."""
    for layer in context.layers:
        if copies > 1:
            if is_recurrent(layer):
                for states in (layer.conv_states, layer.recurrent_states):
                    for key, state in states.items():
                        states[key] = None if state is None else state.repeat_interleave(copies, 0)
            if hasattr(layer, "batch_repeat_interleave"):
                layer.batch_repeat_interleave(copies)
        kind: Any = type(layer)
        layer.__class__ = _held(kind)


@cache
def _held(kind: Any) -> Any:
    """A kind of cache layer to which writing does nothing; what is read is the context's and the new together."""

    class Held(kind):  # type: ignore[misc]
        _layer_type = None  # transformers registers layers by this
        read = 0

        def update(self, *args: Any, **kwargs: Any) -> Any:
            before, count = dict(self.__dict__), self.read + 1
            try:
                return super().update(*args, **kwargs)
            finally:
                self.__dict__.clear()
                self.__dict__.update(before, read=count)

        def update_conv_state(self, conv_states: Any, state_idx: int = 0, *args: Any, **kwargs: Any) -> Any:
            import torch

            self.read += 1
            return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

        def update_recurrent_state(self, recurrent_states: Any, *args: Any, **kwargs: Any) -> Any:
            self.read += 1
            return recurrent_states

    return Held


def is_recurrent(layer: Any) -> bool:
    """Whether a cache layer has states that every token changes: padding in front of a token would be seen by it."""
    return hasattr(layer, "recurrent_states")


def was_read(context: Any) -> bool:
    """Whether every layer of a held cache was asked: a model that drops its cache forgets the context in silence."""
    return all(getattr(layer, "read", 0) for layer in context.layers)
