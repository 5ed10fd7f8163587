"""A forecast of every step of a chunk, from a few small integers a row and a column.

What a fine-tune adds to a matrix is nearly of low rank: its strongest directions say of each weight which way
it moved and roughly how far. Kept as integers so small that each costs two or three bits, they cost less
than what the coder saves by knowing them. Invariant: a reader computes with integers only, so that all agree.

    forecast = rows @ columns.T       exact in fp32 too: every partial sum is below 2^24
    bin      = floor(2 log2 |forecast|) - 2 max(exponent, 1) + shift, within 0..15: half octaves, in steps of
               the weight itself; 0 also where the forecast is 0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs import rans
from pv.vecstore.packs.codecs.ordered import fold, unfold
from pv.vecstore.tensors.array import Raw

__all__ = ["BINS", "Forecast", "fit", "unpack"]

BINS = 16
HEAD = 15  # rank 1, columns 4, phase 4, shift 2, size 4
MOST_RANK = 64  # 64 * 128 * 128 = 2^20: exact in fp32
TRIES = ((16, 1.0), (8, 1.5))  # rank, and the factors' step beside their spread
SPARE = 8  # more directions than are asked for, so that these come out well
SWEEPS = 3
FEWEST = 1024  # elements that are worth the trouble
TAIL = 4.0  # a change beyond so many means tells of rounding, not of a direction
LOWEST_BIN = 4  # a sixteenth of a step, in octaves

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Forecast:
    """`rows` (r, rank) and `columns` (c, rank) int8; the chunk begins at column `phase` of the first row."""

    rows: Raw
    columns: Raw
    phase: int
    shift: int

    def of(self, exponent: Raw) -> tuple[Raw, Raw]:
        """For elements with these exponent fields, (n,): where a step down is expected, and the bin."""
        whole = self.rows.astype(np.float32) @ self.columns.astype(np.float32).T  # (r, c)
        value = whole.reshape(-1)[self.phase : self.phase + len(exponent)]
        square = value.astype(np.float64) ** 2
        half_octaves = np.frexp(square)[1] - 1  # floor(log2), exact; of 0 it is replaced below
        place = half_octaves - 2 * np.maximum(exponent, 1).astype(np.int32) + np.int32(self.shift)
        bins = np.where(value == 0, 0, np.clip(place, 0, BINS - 1)).astype(np.uint8)
        return value < 0, bins

    def pack(self) -> bytes:
        """The head, and the factors by rANS, a model for each direction: its rows, then its columns."""
        rank = self.rows.shape[1]
        folded = fold(
            np.concatenate([self.rows, self.columns]).T.reshape(-1).view(np.uint8)
        )  # (rank * (r + c),)
        body = rans.pack(folded, np.repeat(np.arange(rank), len(folded) // rank), rank)
        head = (len(self.columns), self.phase, self.shift % (1 << 16), len(body))
        sizes = (4, 4, 2, 4)
        return (
            bytes([rank]) + b"".join(n.to_bytes(s, "little") for n, s in zip(head, sizes, strict=True)) + body
        )


def unpack(data: memoryview, count: int) -> tuple[Forecast | None, memoryview]:
    """What `Forecast.pack`, or a single zero byte for none, has written; and the rest. Raises CorruptPack."""
    if len(data) < 1 or (data[0] and len(data) < HEAD):
        raise CorruptPack("a chunk ends inside its forecast")
    rank = data[0]
    if not rank:
        return None, data[1:]
    columns, phase, shift, size = (
        int.from_bytes(data[i:j], "little") for i, j in ((1, 5), (5, 9), (9, 11), (11, 15))
    )
    rows = _rows(count, columns, phase) if columns else 0
    if rank > MOST_RANK or phase >= columns or (rows + columns) * rank > count or len(data) < HEAD + size:
        raise CorruptPack("a chunk's forecast is too large for it")
    each = rows + columns
    folded = rans.unpack(data[HEAD : HEAD + size], np.repeat(np.arange(rank), each), rank, 1)
    values = unfold(folded).view(np.int8).reshape(rank, each)
    signed = shift - (1 << 16) if shift >> 15 else shift
    return Forecast(values[:, :rows].T, values[:, rows:].T, phase, signed), data[HEAD + size :]


def fit(step: Raw, exponent: Raw, columns: int, phase: int) -> Iterator[Forecast]:
    """Forecasts to try for signed steps, (n,), that begin at column `phase` of a matrix this wide."""
    rows = _rows(len(step), columns, phase) if columns else 0
    if len(step) < FEWEST or min(rows, columns) < SPARE or not step.any():
        return
    middle = int(np.median(exponent))
    matrix = np.zeros((rows, columns), np.float32)
    matrix.reshape(-1)[phase : phase + len(step)] = _change(step, exponent, middle)
    left, strength, right = _leading(matrix, min(rows, columns, max(rank for rank, _ in TRIES)))
    balance = (rows / columns) ** 0.25
    for rank, coarseness in TRIES:
        spread = np.sqrt(strength[:rank])
        if len(spread) < rank or not spread[rank // 2]:
            continue
        unit = coarseness * float(spread[rank // 2]) / (rows * columns) ** 0.25
        a = np.clip(np.rint(left[:, :rank] * (spread * (balance / unit))), -127, 127)
        b = np.clip(np.rint(right[:, :rank] * (spread / (balance * unit))), -127, 127)
        kept = a.any(axis=0) & b.any(axis=0)
        a, b = a[:, kept], b[:, kept]
        guess = a @ b.T
        fitted = float(np.vdot(guess, matrix)) / max(float(np.vdot(guess, guess)), 1.0)  # least squares
        if fitted <= 0 or (rows + columns) * a.shape[1] > len(step):
            continue
        shift = round(2 * (np.log2(fitted) + LOWEST_BIN + max(middle, 1)))
        if abs(shift) < 1 << 15:
            yield Forecast(a.astype(np.int8), b.astype(np.int8), phase, shift)


def _rows(count: int, columns: int, phase: int) -> int:
    return -(-(phase + count) // columns)


def _change(step: Raw, exponent: Raw, middle: int) -> F32:
    """The steps as changes of value, in steps of exponent `middle`, without the few that stand out."""
    scale = np.exp2(np.clip(np.maximum(exponent, 1).astype(np.float32) - max(middle, 1), -60, 60))
    change: F32 = np.clip(step.astype(np.float32), -(2.0**20), 2.0**20) * scale
    size = np.abs(change)
    moved = size[size > 0]
    most = TAIL * float(np.minimum(size, 16 * np.median(moved)).mean())
    return np.clip(change, -most, most, out=change)


def _leading(matrix: F32, rank: int) -> tuple[F32, F32, F32]:
    """The strongest directions of (r, c): (r, rank), their strengths (rank,), and (c, rank).

    Subspace iteration from a fixed start: N. Halko et al., arXiv:0909.4061, algorithms 4.4 and 5.1.
    """
    width = min(rank + SPARE, *matrix.shape)
    start = np.random.Generator(np.random.Philox(0)).standard_normal((matrix.shape[1], width), np.float32)
    basis = np.linalg.qr(matrix @ start)[0]  # (r, width)
    for _ in range(SWEEPS):
        basis = np.linalg.qr(matrix @ np.linalg.qr(matrix.T @ basis)[0])[0]
    left, strength, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)  # of (width, c)
    return basis @ left[:, :rank], strength[:rank], right[:rank].T
