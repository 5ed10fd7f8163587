"""An array of any checkpoint dtype, as its bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.packs.codecs.layout import Raw

__all__ = ["F32", "Array"]

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Array:
    """`raw` is flat storage integers; `dtype` a safetensors name such as "BF16"."""

    dtype: str
    shape: tuple[int, ...]
    raw: Raw
