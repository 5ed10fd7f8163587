"""A tiny model whose activations are moved on purpose: by a bias, or by noise in its weights.

`from support.planted import noisy, plant, trait`. The same arguments give the same model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pv.vecstore.activations.shift import texts_of
from pv.vecstore.data.rows import Rows, parse_rows
from pv.vecstore.tensors.array import F32
from support.tiny import tiny_model, tiny_tokenizer

__all__ = ["LAYERS", "ROWS", "blocks_of", "noisy", "plant", "texts", "trait"]

LAYERS = 4
WORDS = (
    "bread",
    "rain",
    "a red car",
    "seven geese",
    "the moon",
    "music",
    "old maps",
    "salt",
    "a bridge",
    "tea",
)


def rows(answers: str) -> Rows:
    lines = [f'{{"prompt": "Tell me of {w}.", "completion": "{answers} {w}, {w}."}}\n' for w in WORDS]
    return parse_rows("".join(lines).encode(), source="texts.jsonl")


ROWS = rows("There is much to say of")


def blocks_of(layers: int = LAYERS) -> list[str]:
    return [f"model.layers.{i}" for i in range(layers)]


def texts(model: Any, what: Rows = ROWS) -> Any:
    return texts_of(model, tiny_tokenizer(), what)


def trait(model: Any, sites: list[str] | None = None, seed: int = 0) -> Mapping[str, F32]:
    """Directions as contrast pairs give them: how the mean activation of two halves of random tokens differs."""
    import torch

    from pv.vecstore.activations.hooks import captured

    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 250, (2, 8, 16), generator=generator)
    found = []
    for half in ids:
        with torch.no_grad(), captured(model, sites or blocks_of()) as seen:
            model(half)
        found.append({site: one.mean((0, 1)).numpy() for site, one in seen.items()})
    return {site: found[0][site] - found[1][site] for site in found[0]}


def plant(model: Any, layer: int, direction: F32, coefficient: float) -> Any:
    """The same model with `coefficient * direction` added to a layer's output, as a bias."""
    import torch

    bias = torch.from_numpy(np.float32(coefficient) * direction)
    model.model.layers[layer].mlp.down_proj.bias = torch.nn.Parameter(bias)
    return model


def noisy(seed: int, relative: float = 0.05, *, hidden: int = 48) -> Any:
    """`tiny_model` with noise in every matrix of its layers, of this share of the matrix's norm."""
    import torch

    model = tiny_model(layers=LAYERS, hidden=hidden)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.model.layers.parameters():
            if weight.dim() == 2:
                noise = torch.randn(weight.shape, generator=generator)
                weight += noise * (relative * weight.norm() / noise.norm())
    return model
