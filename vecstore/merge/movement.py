"""How far one block of weights is from another: the one function that a diff of checkpoints spends its time in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pv.vecstore.merge import loops
from pv.vecstore.merge.diff import Movement
from pv.vecstore.native import kernels
from pv.vecstore.tensors.array import F32, Raw
from pv.vecstore.tensors.formats import to_f32

__all__ = ["Sums", "measure", "total"]

BLOCK = 1 << 13
"""Elements that numpy looks at at a time: in fp64 they stay in the cache, and it takes no fresh pages for them."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Of a block a and a block b, and d = b - a in fp32: how many elements differ, and sums over all of them in fp64.

    What is not finite in a block makes its sums infinite or NaN.
    """

    elements: int = 0
    changed: int = 0
    step2: float = 0.0  # Σ d²
    a2: float = 0.0
    b2: float = 0.0
    ab: float = 0.0
    largest: float = 0.0  # max |d|

    def plus(self, other: Sums) -> Sums:
        return Sums(
            self.elements + other.elements,
            self.changed + other.changed,
            self.step2 + other.step2,
            self.a2 + other.a2,
            self.b2 + other.b2,
            self.ab + other.ab,
            float(np.maximum(self.largest, other.largest)),  # NaN stays NaN
        )

    @property
    def finite(self) -> bool:
        return math.isfinite(self.a2) and math.isfinite(self.b2)

    @property
    def cosine(self) -> float:
        """Of a and b themselves; 0 if one of them is 0 everywhere."""
        product = math.sqrt(self.a2) * math.sqrt(self.b2)
        return self.ab / product if product else 0.0

    def movement(self, where: str) -> Movement:
        return Movement(where, self.elements, self.changed, self.step2, self.a2, self.largest)


def measure(a_raw: Raw, a_dtype: str, b_raw: Raw, b_dtype: str) -> Sums:
    """The sums of two blocks of as many elements, flat storage integers; the dtypes are of FLOATS."""
    if kernels.available():
        one = kernels.measure(loops.values(a_raw, a_dtype), loops.values(b_raw, b_dtype))
        return Sums(a_raw.size, one.changed, one.step2, one.a2, one.b2, one.ab, one.largest)
    found = Sums()
    with np.errstate(all="ignore"):  # what is not finite gives what is not a number
        for low in range(0, a_raw.size, BLOCK):
            part = slice(low, low + BLOCK)
            found = found.plus(_sums(to_f32(a_raw[part], a_dtype), to_f32(b_raw[part], b_dtype)))
    return found


def _sums(a: F32, b: F32) -> Sums:
    step = b - a
    wide_a, wide_b, wide = a.astype(np.float64), b.astype(np.float64), step.astype(np.float64)
    return Sums(
        a.size,
        int(np.count_nonzero(step)),
        float(wide @ wide),
        float(wide_a @ wide_a),
        float(wide_b @ wide_b),
        float(wide_a @ wide_b),
        float(np.maximum(step.max(initial=0), -step.min(initial=0))),
    )


def total(parts: list[Sums]) -> Sums:
    """All of them together."""
    found = Sums()
    for part in parts:
        found = found.plus(part)
    return found
