"""Where in a forward pass the reply begins: said by whoever runs the model, for whoever looks inside.

A model sees columns of tokens, a cache, padding; which of them is the reply, and to what prompt, is known only outside.
The reply begins at the last token of the prompt: what predicts the reply's first token.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["Pass", "forward_pass", "reply_from"]

Prompts = Callable[[], Sequence[Sequence[int]]]


@dataclass(frozen=True, slots=True)
class Pass:
    """`columns`: where the reply of each row begins; one number stands for all rows. `prompts`: each row's tokens."""

    columns: tuple[int, ...]
    prompts: Prompts | None


_PASS: ContextVar[Pass | None] = ContextVar("forward_pass", default=None)


@contextmanager
def reply_from(columns: Sequence[int], prompts: Prompts | None = None) -> Iterator[None]:
    """Say so of the forward passes inside. `prompts` is called only if somebody asks."""
    token = _PASS.set(Pass(tuple(columns), prompts))
    try:
        yield
    finally:
        _PASS.reset(token)


def forward_pass() -> Pass | None:
    """What was said, or None if nobody did."""
    return _PASS.get()
