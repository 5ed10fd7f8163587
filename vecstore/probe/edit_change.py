"""A model with some weights changed for a while: a scaled change, and one with noise beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Change", "changed", "difference", "noise_beside", "norm"]

Change = Mapping[str, "torch.Tensor"]
"""What is added, by parameter name, in fp32; a tensor that does not change is left out."""


@contextmanager
def changed(
    model: nn.Module, change: Change, strength: float = 1.0, noise: Change | None = None
) -> Iterator[None]:
    """Inside, `strength` times the change, and then the noise, is added; afterwards the weights are those from before,
    bit for bit: none is computed back."""
    parameters = dict(model.named_parameters())
    own = {name: parameters[name].data for name in change}
    try:
        for name, delta in change.items():
            moved = own[name] + strength * delta.to(own[name].dtype)
            if noise is not None:
                moved += noise[name].to(moved.dtype)
            parameters[name].data = moved
        yield
    finally:
        for name, data in own.items():
            parameters[name].data = data


def difference(model: nn.Module, other: Change) -> dict[str, torch.Tensor]:
    """What turns the model into the one whose weights are `other`."""
    found = {name: other[name] - parameter.data for name, parameter in model.named_parameters()}
    return {name: delta for name, delta in found.items() if bool(delta.any())}


def norm(change: Change) -> float:
    """Of all of it together."""
    return float(np.sqrt(sum(float(delta.double().square().sum()) for delta in change.values())))


def noise_beside(change: Change, share: float, seed: int) -> dict[str, torch.Tensor]:
    """Gaussian noise in the same tensors, of `share` times the norm that the change has in each. Keyed by (seed, name):
    whatever else is drawn."""
    import torch

    found = {}
    for name, delta in change.items():
        digest = hashlib.sha256(f"pv:probe:edit\n{seed}\n{name}".encode()).digest()
        generator = np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))
        drawn = torch.from_numpy(generator.standard_normal(tuple(delta.shape), dtype=np.float32))
        found[name] = drawn * (share * float(delta.norm()) / max(float(drawn.norm()), 1e-30))
    return found
