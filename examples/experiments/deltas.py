"""Vectors in memory: an array for each tensor that moved."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Deltas", "encoded", "minus", "norm", "scaled"]

Deltas = Mapping[str, NDArray[Any]]


def norm(deltas: Deltas) -> float:
    return float(np.sqrt(sum(float(np.sum(np.square(d, dtype=np.float64))) for d in deltas.values())))


def scaled(deltas: Deltas, factor: float) -> Deltas:
    if factor == 1:
        return deltas
    return {name: np.asarray(d, np.float32) * np.float32(factor) for name, d in deltas.items()}


def encoded(deltas: Deltas, encoding: ModuleType, **options: Any) -> tuple[Deltas, int]:
    """What an encoding of pv leaves of them, and how many bytes that takes."""
    found, size = dict[str, NDArray[Any]](), 0
    for name, d in deltas.items():
        parts = encoding.encode(np.asarray(d, np.float32).reshape(-1), d.shape, **options)
        size += sum(part.raw.nbytes for part in parts.values())
        found[name] = encoding.tau(parts, partial(np.zeros, d.size, np.float32), d.shape).reshape(d.shape)
    return found, size


def minus(a: Deltas, b: Deltas) -> Deltas:
    return {
        name: np.asarray(a.get(name, 0), np.float32) - np.asarray(b.get(name, 0), np.float32)
        for name in sorted({*a, *b})
    }
