"""`exact`: the fine-tuned tensor itself, bit for bit. tau is the fp32 difference from the base.

Part "ft". What makes it small is the pack's delta codec, not the encoding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pv.registry.dtypes import DTYPES
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.vectors.encodings.shapes import expect

__all__ = ["NAME", "check", "tau"]

NAME = "exact"


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    expect(rows, {"ft": (DTYPES, shape)})


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    ft = parts["ft"]
    difference: F32 = to_f32(ft.raw, ft.dtype) - base()
    return difference
