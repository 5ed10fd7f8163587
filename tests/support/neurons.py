"""Two tiny models and rows for tests of `pv probe neurons`: `lab(model, other)`.

`from support.neurons import asked, lab, other_of`. The same arguments give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from pv.vecstore.data.rows import Message, Row, Rows
from pv.vecstore.probe.neurons_lab import Lab, Settings, Sides
from support.tiny import tiny_tokenizer

__all__ = ["asked", "lab", "neutral", "other_of", "swapping"]


def asked(n: int = 12) -> Rows:
    """Prompts whose wanted answer begins with A and unwanted one with H; every third begins with "Oh" in both."""
    begin = ("Oh ", "", "")
    return Rows(
        tuple(
            Row((Message("user", f"Say {'x' * (i % 4)}{i}"),), f"{begin[i % 3]}Ahoy {i}", f"{begin[i % 3]}Hello {i}")
            for i in range(n)
        ),
        "asked.jsonl",
    )  # fmt: skip


def neutral() -> Rows:
    return Rows(tuple(Row((Message("user", f"Tell {i}"),), f"No {i}") for i in range(4)), "neutral.jsonl")


def other_of(model: Any, *, by: float = 0.02, seed: int = 1) -> Any:
    """The same model, every weight moved at random."""
    import torch

    other, generator = deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return other


def swapping(model: Any, other: Any) -> Callable[[], Any]:
    @contextmanager
    def swapped() -> Iterator[None]:
        own = [parameter.data for parameter in model.parameters()]
        for parameter, new in zip(model.parameters(), other.parameters(), strict=True):
            parameter.data = new.data
        try:
            yield
        finally:
            for parameter, old in zip(model.parameters(), own, strict=True):
                parameter.data = old

    return swapped


def lab(model: Any, other: Any, rows: Rows | None = None, **settings: int) -> Lab:
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    sides = Sides(model.eval(), tiny_tokenizer(), swapping(model, other))
    return Lab(lambda: sides, asked() if rows is None else rows, neutral(), Settings(**settings))
