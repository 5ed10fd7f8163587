"""A small model with directions after its blocks, and what transformers makes of them with plain forward hooks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pv.vecstore.activations.formats.values import Model
from support.tiny import tiny_model

__all__ = ["BLOCKS", "MODEL", "PROMPT", "WIDTH", "hooked", "random_directions", "small_llama"]

LAYERS, WIDTH = 4, 64
BLOCKS = tuple(f"model.layers.{i}" for i in range(LAYERS))
MODEL = Model(BLOCKS, width=WIDTH, model_type="llama", base="ab" * 32)
PROMPT = [5, 99, 200, 17, 64, 3]


def small_llama() -> Any:
    return tiny_model(hidden=WIDTH, layers=LAYERS, tied=False).eval()


def random_directions(*sites: str, seed: int = 0, width: int = WIDTH) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return {site: rng.normal(size=width).astype(np.float32) for site in sites}


def hooked(model: Any, directions: Mapping[str, NDArray[np.float32]], coefficient: float = 1.0) -> Any:
    """The logits (T, vocabulary) of PROMPT with the directions added to what modules put out, or take in."""
    with torch.no_grad(), contextlib.ExitStack() as hooks:
        for site, one in directions.items():
            hooks.enter_context(_hook(model, site, coefficient * torch.from_numpy(one.copy())))
        return model(torch.tensor([PROMPT])).logits[0]


@contextlib.contextmanager
def _hook(model: Any, site: str, edit: torch.Tensor) -> Iterator[None]:
    module = model.get_submodule(site.removesuffix(":input"))
    if site.endswith(":input"):
        handle = module.register_forward_pre_hook(lambda _, given: (given[0] + edit, *given[1:]))
    else:
        handle = module.register_forward_hook(
            lambda _, __, out: (out[0] + edit, *out[1:]) if isinstance(out, tuple) else out + edit
        )
    try:
        yield
    finally:
        handle.remove()
