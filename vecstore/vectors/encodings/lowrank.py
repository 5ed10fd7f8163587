"""`lowrank:r`: the best approximation of rank r, from a singular value decomposition made once.

Parts of a tensor, as a matrix of `rows` by `columns`:

    "a"       (rank, columns)   I8
    "b"       (rows, rank)      I8
    "scale"   (rank,)           F32

tau is that of `lora` with the factors b and a * scale (one fp32 multiplication an element), and s = 1. A
tensor of fewer than two dimensions has the part "tau" of `float`, one that factors would not make smaller the
parts of `int8`.

Eight steps to a root mean square, as in `int8`: five bits an element, and an error of some 5 % of what the
rank keeps, which is small beside what it leaves out, unless that is next to nothing. The longer factor is rounded
first; the shorter one is then fitted to what the longer one has become.

A rank that is small beside the matrix is found by a randomised subspace iteration in fp32 (Halko, Martinsson and
Tropp, "Finding Structure with Randomness", SIAM Review 2011, algorithm 4.4), any other by the eigenvectors of the
Gram matrix of the shorter side, in fp64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.encodings import floats, int8, lora
from pv.vecstore.vectors.encodings.shapes import expect, matrix, numel

__all__ = ["ALLOWED", "EXAMPLES", "NAME", "check", "encode", "expand", "factored", "options", "tau"]

NAME = "lowrank"
EXAMPLES = ("lowrank:64",)
MOST = 1 << 16
ALLOWED = f"the rank is a whole number from 1 to {MOST}"
STEPS_PER_RMS = 8
LARGEST = 127
F64 = NDArray[np.float64]
I8 = NDArray[np.int8]

_BLOCK = 1 << 20  # elements widened to fp64 at a time
_NOISE = 1e-7  # of the largest singular value: below it the Gram matrix has no digits left
_NOISE_F32 = 1e-6  # and a sketch in fp32
_PASSES = 2  # of the subspace iteration
_SKETCHED = 4  # a sketch pays where the shorter side is so many times as wide
_RANGE = 1e-12, 1e12  # of the largest element: squares stay well inside fp32


def check(rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Raises FormatError if these parts cannot be those of a tensor of this shape."""
    if rows.keys() == {"tau"}:
        floats.check(rows, shape)
        return
    if "q" in rows:
        int8.check(rows, shape)
        return
    height, width = matrix(shape)
    rank = rows["scale"].shape[0] if "scale" in rows and rows["scale"].shape else 1
    lora.check_rank(rank, shape)
    expect(rows, {"a": ({"I8"}, (rank, width)), "b": ({"I8"}, (height, rank)), "scale": ({"F32"}, (rank,))})


def tau(parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    if "tau" in parts:
        return floats.tau(parts, base, shape)
    if "q" in parts:
        return int8.tau(parts, base, shape)
    return expand(parts, shape)(0, numel(shape))


def expand(parts: Mapping[str, Array], shape: tuple[int, ...]) -> Callable[[int, int], F32]:
    """tau's elements start to stop, of factors."""
    return lora.rows_of(*_widened(parts), np.float32(1))


def factored(parts: Mapping[str, Array]) -> tuple[Array, Array, float]:
    """(b, a, 1) of a tensor that is low-rank, in fp32."""
    b, a = _widened(parts)
    return _array("F32", b, "<u4"), _array("F32", a, "<u4"), 1.0


def _widened(parts: Mapping[str, Array]) -> tuple[F32, F32]:
    """(rows, rank) and (rank, columns), with the scale in the second."""
    scale = parts["scale"].raw.view("<f4")
    a, b = (parts[part].raw.view(np.int8).astype(np.float32) for part in "ab")
    with np.errstate(all="ignore"):
        return b.reshape(-1, len(scale)), a.reshape(len(scale), -1) * scale[:, None]


def options(text: str) -> dict[str, Any] | None:
    """The rank."""
    rank = int(text[:9]) if text.isdecimal() else 0
    return {"rank": rank} if 1 <= rank <= MOST else None


def encode(tau: F32, shape: tuple[int, ...], rank: int = 64, *, sketch: bool = True) -> dict[str, Array]:
    """(n,) finite fp32 of a shape → factors of at most `rank`. Without `sketch`, as pv 0.1 made them."""
    if rank < 1:
        raise UsageError(f"a rank of {rank} keeps nothing", hint="lowrank:64 keeps 64 directions a tensor")
    height, width = matrix(shape)
    if len(shape) < 2:
        return floats.encode(tau, shape)
    if rank * (height + width) >= height * width:
        return int8.encode(tau, shape)
    whole = tau.reshape(height, width)
    tall = whole if height >= width else whole.T
    long, short, scale = _factors(tall, rank, sketch)  # (longer side, r), (r, shorter side), (r,)
    b, a = (long, short) if height >= width else (short.T, long.T)
    return {
        "a": _array("I8", a, np.uint8),
        "b": _array("I8", b, np.uint8),
        "scale": _array("F32", scale, np.dtype("<u4")),
    }


def _factors(tall: F32, rank: int, sketch: bool) -> tuple[I8, I8, F32]:
    """(m, n), m >= n, to (m, r), (r, n) and the scale of each direction (r,)."""
    low, high = _RANGE
    small = _SKETCHED * _sketch_width(rank) <= tall.shape[1]
    if sketch and small and low < max(tall.max(), -tall.min()) < high:
        steps, outer = _projected(tall, _sketched_directions(tall, rank))
    else:
        steps, outer = _projected_in_blocks(tall, _directions(tall, rank))
    half = steps.astype(np.float64)
    short = np.linalg.pinv(half.T @ half, hermitian=True) @ outer  # the least squares fit to `steps`
    columns, size = _steps(short.T)
    return steps, columns.T, size.astype(np.float32)


def _projected(tall: F32, right: F32) -> tuple[I8, F64]:
    """The longer factor in whole steps, (m, r), and what the shorter one is fitted to, (r, n)."""
    steps, _ = _steps((tall @ right).astype(np.float64))
    return steps, (steps.T.astype(np.float32) @ tall).astype(np.float64)


def _projected_in_blocks(tall: F32, right: F64) -> tuple[I8, F64]:
    """The same in fp64, a block at a time."""
    long = np.empty((tall.shape[0], right.shape[1]))
    for at, block in _blocks(tall):
        long[at] = block @ right
    steps, _ = _steps(long)
    outer = np.zeros((right.shape[1], tall.shape[1]))
    for at, block in _blocks(tall):
        outer += steps[at].astype(np.float64).T @ block
    return steps, outer


def _directions(tall: F32, rank: int) -> F64:
    """The first right singular vectors, (n, r)."""
    gram = np.zeros((tall.shape[1],) * 2)
    for _, block in _blocks(tall):
        gram += block.T @ block
    values, vectors = np.linalg.eigh(gram)  # ascending
    sigma = np.sqrt(np.maximum(values[::-1][:rank], 0))
    keep = max(1, int(np.count_nonzero(sigma > _NOISE * sigma[0])))
    return vectors[:, ::-1][:, :keep]


def _sketch_width(rank: int) -> int:
    """Directions sketched: with as many again, two passes come within 1 % of the error of the best."""
    return 2 * rank + 8


def _sketched_directions(tall: F32, rank: int) -> F32:
    """Nearly the first right singular vectors, (n, r), from a few passes over the matrix. The same draw every time."""
    draw = np.random.Generator(np.random.Philox(0))
    rows = draw.standard_normal((tall.shape[1], _sketch_width(rank)), np.float32)  # (n, k)
    for _ in range(_PASSES):
        columns, _ = np.linalg.qr(tall @ rows)  # (m, k)
        rows = tall.T @ columns  # (n, k)
    left, sigma, _ = np.linalg.svd(rows, full_matrices=False)
    keep = max(1, int(np.count_nonzero(sigma[:rank] > _NOISE_F32 * sigma[0])))
    return left[:, :keep]


def _steps(factor: F64) -> tuple[I8, F64]:
    """(m, r) to whole steps, and the size of a step for each column, (r,)."""
    rms = np.sqrt(np.square(factor).mean(axis=0))
    size = np.maximum(rms / STEPS_PER_RMS, np.abs(factor).max(axis=0) / LARGEST)
    safe = np.where(size > 0, size, 1.0)
    return np.clip(np.rint(factor / safe), -LARGEST, LARGEST).astype(np.int8), size


def _blocks(tall: F32) -> Iterator[tuple[slice, F64]]:
    step = max(1, _BLOCK // max(1, tall.shape[1]))
    for low in range(0, tall.shape[0], step):
        at = slice(low, low + step)
        yield at, tall[at].astype(np.float64)


def _array(dtype: str, values: NDArray[Any], storage: Any) -> Array:
    return Array(dtype, values.shape, np.ascontiguousarray(values).reshape(-1).view(storage))
