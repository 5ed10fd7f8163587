"""`add`: Σ wᵢ·δᵢ, task arithmetic (Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023).

Linear: the plan sums the weights of one vector before anything is multiplied (docs/decisions/0004).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pv.vecstore.merge.share import Tensor, Voice
from pv.vecstore.merge.steps import Sum

__all__ = ["LINEAR", "NAME", "check_weight", "ready"]

NAME = "add"
LINEAR = True


def check_weight(options: Mapping[str, Any], weight: float, what: str) -> None:
    """Every weight has a meaning."""


def ready(options: Mapping[str, Any], voices: Sequence[Voice], tensor: Tensor) -> Sum:
    """The step for one tensor."""
    return Sum(voices, [voice.weight for voice in voices])
