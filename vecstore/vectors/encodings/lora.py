"""`lora`: low-rank factors, kept bit for bit in their own dtype: an adapter comes in and goes out unchanged.

Parts of a tensor, as a matrix of `rows` by `columns` (the last dimension is a row; a vector is one row):

    "a"   (rank, columns)   any float dtype
    "b"   (rows, rank)      any float dtype
    "s"   ()                F32

    tau[i, j] = (...((0 + b[i,0]*a[0,j]) + b[i,1]*a[1,j]) + ... + b[i,rank-1]*a[rank-1,j]) * s

in fp32: the factors are widened exactly, every `*` and `+` is one rounding to nearest, in this order. What
is not low-rank in an adapter has one dense part instead: "tau", as in `float` (fp32 or bf16), or "ft", the
tensor that takes the base's place, as in `exact`.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", ICLR 2022.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors import float_environment
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.vectors.encodings import exact, floats
from pv.vecstore.vectors.encodings.shapes import expect, matrix, numel

__all__ = [
    "MAX_RANK",
    "NAME",
    "check",
    "check_factors",
    "check_rank",
    "expand",
    "factored",
    "factors",
    "product",
    "rows_of",
    "tau",
]

NAME = "lora"
MAX_RANK = 1024
"""A higher rank is allowed only up to the smaller side of the tensor, where it could still say more."""

_BLOCK = 1 << 15  # elements of tau worked on at a time: they stay in the cache through all ranks


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    if rows.keys() == {"ft"}:
        exact.check(rows, shape)
    elif rows.keys() == {"tau"}:
        floats.check(rows, shape)
    else:
        check_factors(rows, shape)


def check_factors(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    height, width = matrix(shape)
    rank = rows["a"].shape[0] if "a" in rows and rows["a"].shape else 1
    check_rank(rank, shape)
    expect(rows, {"a": (FLOATS, (rank, width)), "b": (FLOATS, (height, rank)), "s": ({"F32"}, ())})


def check_rank(rank: int, shape: tuple[int, ...]) -> None:
    """Raises FormatError for more work than a tensor of this shape could need."""
    height, width = matrix(shape)
    if not 1 <= rank <= max(MAX_RANK, min(height, width)):
        raise FormatError(f"a rank of {rank} in a tensor of {height} by {width}")


def factors(a: Array, b: Array, s: float) -> dict[str, Array]:
    """The parts of one low-rank tensor."""
    return {"a": a, "b": b, "s": Array("F32", (), np.array([s], np.float32).view("<u4"))}


def factored(parts: Mapping[str, Array]) -> tuple[Array, Array, float]:
    """(b, a, s) of a tensor that is low-rank, as they are."""
    return parts["b"], parts["a"], float(to_f32(parts["s"].raw, parts["s"].dtype)[0])


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    if "ft" in parts:
        return exact.tau(parts, base, shape)
    if "tau" in parts:
        return floats.tau(parts, base, shape)
    return expand(parts, shape)(0, numel(shape))


def expand(parts: Mapping[str, Array], shape: tuple[int, ...]) -> Callable[[int, int], F32]:
    """tau's elements start to stop, of factors."""
    a, b, s = (to_f32(parts[part].raw, parts[part].dtype) for part in "abs")
    rank = parts["a"].shape[0]
    return rows_of(b.reshape(-1, rank), a.reshape(rank, -1), s[0])


def rows_of(b: F32, a: F32, s: np.float32) -> Callable[[int, int], F32]:
    """Elements start to stop of `product`, made of the rows that they lie in."""
    width = max(1, a.shape[1])

    def span(start: int, stop: int) -> F32:
        low, high = start // width, -(-stop // width)
        return product(b[low:high], a, s)[start - low * width : stop - low * width]

    return span


def product(b: F32, a: F32, s: np.float32) -> F32:
    """(rows, rank) times (rank, columns) times s, as the module says, → (rows * columns,) fp32."""
    rows, columns = b.shape[0], a.shape[1]
    float_environment.check()
    out = np.empty((rows, columns), np.float32)
    step = max(1, _BLOCK // max(1, columns))
    one = np.empty((min(step, rows), columns), np.float32)
    with np.errstate(all="ignore"):
        for low in range(0, rows, step):
            total = out[low : low + step]  # (step, columns)
            total[:] = 0
            for k in range(a.shape[0]):
                term = np.multiply(b[low : low + step, k, None], a[None, k], out=one[: len(total)])
                np.add(total, term, out=total)
            if s != 1:
                np.multiply(total, s, out=total)
    return out.reshape(-1)
