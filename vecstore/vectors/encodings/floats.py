"""`float`: tau itself, in fp32 or rounded to bf16, for vectors born from fp32 masters. Part "tau"."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.encodings.shapes import expect

__all__ = ["ALLOWED", "EXAMPLES", "NAME", "check", "encode", "options", "tau"]

NAME = "float"
EXAMPLES = ("float", "float:fp32")
ALLOWED = "the dtype is bf16 or fp32"


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    expect(rows, {"tau": (FLOATS, shape)})


def options(text: str) -> dict[str, Any] | None:
    """`float` is `float:bf16`; `float:fp32` keeps tau without loss."""
    return {"": {"dtype": "BF16"}, "bf16": {"dtype": "BF16"}, "fp32": {"dtype": "F32"}}.get(text)


def encode(tau: F32, shape: tuple[int, ...], dtype: str = "BF16") -> dict[str, Array]:
    """Keep tau as `dtype` ("BF16", rounded to nearest, or "F32", without loss)."""
    if dtype == "F32":
        return {"tau": Array("F32", shape, np.ascontiguousarray(tau).view("<u4"))}
    return {"tau": Array(dtype, shape, round_to(tau, dtype, "nearest", seed=0, name="", start=0))}


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    part = parts["tau"]
    return to_f32(part.raw, part.dtype)
