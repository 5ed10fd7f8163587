"""`add`: Σ wᵢ·δᵢ, task arithmetic (Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023).

Linear: the plan sums the weights of one vector before anything is multiplied (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pv.vecstore.merge.share import Place, Share
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32

__all__ = ["LINEAR", "NAME", "check_weight", "combine"]

NAME = "add"
LINEAR = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning."""


def combine(options: Mapping[str, Any], shares: Sequence[Share], place: Place) -> F32:
    """Shares of one tensor, in order of vector id: (n,) fp32 each → (n,) fp32."""
    return scaled_sum([(share.weight, share.delta) for share in shares])
