"""What a merge method is given of one tensor: each behaviour's share, and the place they are added to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pv.vecstore.merge.selection import Cut
from pv.vecstore.tensors.array import F32

__all__ = ["Place", "Share"]


@dataclass(frozen=True, slots=True)
class Share:
    """`weight` times `delta`, (n,) fp32. `key` stands for the delta where something is drawn by lot for it.

    The key is that of the vector, or of the sum of vectors, and not the behaviour's name: names order and draw nothing.
    `cut` is what is kept of the delta, where that was found over the whole model.
    """

    weight: float
    delta: F32
    key: str = ""
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The base's tensor: its name, its shape, and its values, flat (n,) fp32, for the rules that look at them."""

    name: str
    shape: tuple[int, ...]
    base: Callable[[], F32]
