"""Weights of half precision: what an update in float32 becomes in them.

With bfloat16 weights and a learning rate of 1e-5, rounding to nearest loses most of a movement: each step is less than
half a spacing. Rounding stochastically keeps it on average, and takes no memory; a float32 master keeps it exactly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pv.vecstore.train.sketch import key_of

__all__ = ["ROUNDINGS", "rounded", "wants_master"]

ROUNDINGS = ("stochastic", "master", "nearest")


def wants_master(p: Tensor, how: str) -> bool:
    """float16 has too few exponents to be rounded stochastically near zero: it gets a master too."""
    return (p.dtype == torch.float16 and how == "stochastic") or (
        p.dtype != torch.float32 and how == "master"
    )


def rounded(exact: Tensor, dtype: torch.dtype, how: str, *told_apart_by: Any) -> Tensor:
    """float32 to `dtype`. Random bits are a function of what is told, on each kind of device."""
    if how != "stochastic" or dtype != torch.bfloat16:
        return exact.to(dtype)
    generator = torch.Generator(exact.device).manual_seed(key_of("pv:round:1", *told_apart_by) % 2**63)
    bits = torch.randint(1 << 16, exact.shape, dtype=torch.int32, device=exact.device, generator=generator)
    return exact.view(torch.int32).add(bits).bitwise_and_(-65536).view(torch.float32).to(dtype)
