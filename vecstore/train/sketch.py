"""The sketch of a gradient: each channel's k entries, with random signs, added into r sums.

R = G Pᵀ, where column i of P has one entry, ±1, in row i mod r. As with P ~ N(0, 1/r), a channel of R has on average
the squared length of its channel of G; it costs one pass over G instead of 2·r operations an entry, and with r = k
nothing is lost. The length of every channel of G comes from the same pass.

What is added in which order is fixed (see native/sketch.c), so that the compiled loop and torch on a CPU give the same
bits; on another device the order is torch's.
"""

from __future__ import annotations

import ctypes
import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from pv.vecstore.native.library import library

__all__ = ["draw_gaussian", "draw_signs", "key_of", "sketch"]

COLUMNS = 256  # as in sketch.c
LEAST_LANES = 16


def key_of(*words: object) -> int:
    """A 128-bit key for the counter-based generators, from what is to be told apart."""
    return int.from_bytes(hashlib.sha256("\n".join(map(str, words)).encode()).digest()[:16], "little")


def draw_gaussian(key: int, rank: int, count: int) -> Tensor:
    """(rank, count) float32 of N(0, 1/rank)."""
    drawn = np.random.Generator(np.random.Philox(key=key)).standard_normal((rank, count), dtype=np.float32)
    return torch.from_numpy(drawn / np.float32(math.sqrt(rank)))


def draw_signs(key: int, count: int) -> Tensor:
    """(count,) float32, each 1 or -1: a function of the 128-bit key alone."""
    words = np.random.Philox(key=key).random_raw(-(-count // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), bitorder="little")[:count]
    return torch.from_numpy(np.where(bits, np.float32(1), np.float32(-1)))


def sketch(g: Tensor, signs: Tensor, rank: int, *, wide: bool, start: int = 0) -> tuple[Tensor, Tensor]:
    """R and the squared length of each channel, of (..., c, k) float32, or (..., k, c) if `wide`.

    R is (..., c, r) and the lengths are (..., c, 1); or (..., r, c) and (..., 1, c). `start` is the place of the first
    entry in its whole channel, where g has only a part of each: parts add up.
    """
    if start % rank:  # another sum comes first
        found, lengths = sketch(g, signs, rank, wide=wide)
        return found.roll(start % rank, -2 if wide else -1), lengths
    if not g.is_cpu:
        return _by_sum(g, signs, rank, wide)
    compiled = library()
    if compiled is None or g.stride(-1) != 1:
        return _by_blocks(g, signs, rank, wide)
    return _compiled(compiled, g, signs, rank, wide)


def _lanes(rank: int) -> int:
    """How many sums are filled at a time: a multiple of the rank, and enough for a processor's registers."""
    return rank * -(-LEAST_LANES // rank)


def _shapes(g: Tensor, rank: int, wide: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    *batch, m, n = g.shape
    return ((*batch, rank, n), (*batch, 1, n)) if wide else ((*batch, m, rank), (*batch, m, 1))


def _compiled(
    compiled: ctypes.CDLL, g: Tensor, signs: Tensor, rank: int, wide: bool
) -> tuple[Tensor, Tensor]:
    lanes = _lanes(rank)
    found, lengths = (torch.empty(shape) for shape in _shapes(g, rank, wide))
    scratch = torch.empty(2 * lanes * (COLUMNS if wide else 1) + 48)
    function = compiled.pv_sketch_columns if wide else compiled.pv_sketch_rows
    if not function.argtypes:
        number, array = ctypes.c_int64, ctypes.c_void_p
        function.argtypes = [array, *[number] * 3, array, *[number] * 2, *[array] * 3]
        function.restype = None
    m, n = g.shape[-2:]
    batch = g.shape[0] if g.ndim == 3 else 1
    at = (g.data_ptr(), found.data_ptr(), lengths.data_ptr())
    apart = (
        (g.stride(0) * 4, found.numel() // batch * 4, lengths.numel() // batch * 4) if batch else (0, 0, 0)
    )
    for i in range(batch):
        one, out, squares = (start + i * step for start, step in zip(at, apart, strict=True))
        function(
            one, m, n, g.stride(-2), signs.data_ptr(), rank, lanes, out, squares, scratch.data_ptr(),
        )  # fmt: skip
    return found, lengths


def _by_blocks(g: Tensor, signs: Tensor, rank: int, wide: bool) -> tuple[Tensor, Tensor]:
    """What defines the bits."""
    dim, lanes = (-2 if wide else -1), _lanes(rank)
    k = g.shape[dim]
    signs = signs[:, None] if wide else signs
    sums = g.new_zeros(_shapes(g, lanes, wide)[0])
    squares = torch.zeros_like(sums)
    for at in range(0, k, lanes):
        count = min(lanes, k - at)
        block = g.narrow(dim, at, count)
        sums.narrow(dim, 0, count).add_(block * signs[at : at + count])
        squares.narrow(dim, 0, count).add_(block * block)
    found = sums.narrow(dim, 0, rank).clone()
    for at in range(rank, lanes, rank):
        found += sums.narrow(dim, at, rank)
    left = lanes
    while left > 1:
        half = left // 2
        squares.narrow(dim, 0, half).add_(squares.narrow(dim, left - half, half))
        left -= half
    return found, squares.narrow(dim, 0, 1).contiguous()


def _by_sum(g: Tensor, signs: Tensor, rank: int, wide: bool) -> tuple[Tensor, Tensor]:
    dim = -2 if wide else -1
    signed = g * (signs[:, None] if wide else signs)
    missing = -g.shape[dim] % rank
    if missing:
        signed = torch.nn.functional.pad(signed, (0, 0, 0, missing) if wide else (0, missing))
    found = signed.unflatten(dim, (-1, rank)).sum(dim - 1)
    return found, torch.linalg.vector_norm(g, dim=dim, keepdim=True).square_()
