"""Random bits as a pure function of (seed, name, element index).

Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) turns
a 128-bit counter and a 64-bit key into 128 random bits. Here the key is the first 64 bits, read little end
first, of

    SHA-256("pv:engine:1:random\\n" + decimal seed + "\\n" + name in UTF-8)

and the counter is the element index divided by how many elements 128 bits serve: 8 of 16 bits, or 4 of 32.
Inside a counter the lowest word comes first, and in a word the low half. Invariant: an element's bits depend
on nothing else, so any part of a tensor can be drawn alone, in any order, by any thread.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import PvError

__all__ = ["Stream", "bits16", "bits32", "philox4x32", "stream_key"]

T = TypeVar("T", np.uint16, np.uint32)
_LANES = 8192  # counters worked on at a time: four scratch arrays of 128 KiB stay in the second-level cache
_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


def stream_key(seed: int, name: str) -> tuple[int, int]:
    """The two 32-bit key words of the stream of `name` under `seed` (0 or more)."""
    if seed < 0:
        raise PvError(f"a random stream needs a seed of 0 or more, not {seed}")
    digest = hashlib.sha256(f"pv:engine:1:random\n{seed}\n".encode() + name.encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def philox4x32(counters: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox4x32-10 of each row: counters (n, 4) uint32 → (n, 4) uint32."""
    words = np.ascontiguousarray(counters.T, dtype=np.uint64)  # (4, n)
    even, odd = words[0::2].copy(), words[1::2].copy()  # (2, n) each: words 0 and 2, words 1 and 3
    _mix(even, odd, np.empty_like(even), np.empty_like(even), _key_schedule(key))
    return np.stack([even[0], odd[0], even[1], odd[1]], axis=1).astype(np.uint32)


class Stream:
    """The bits of one (seed, name), with buffers that are reused: one object for one thread."""

    __slots__ = ("_ascending", "_even", "_high", "_keys", "_odd", "_product", "_words")

    def __init__(self, seed: int, name: str) -> None:
        self._keys = _key_schedule(stream_key(seed, name))
        self._ascending = np.arange(_LANES, dtype=np.uint64)
        self._even, self._odd, self._product, self._high = (
            np.empty((2, _LANES), np.uint64) for _ in range(4)
        )
        self._words = np.empty((0, 2), np.uint64)

    def bits16(self, start: int, count: int) -> NDArray[np.uint16]:
        """Elements start ... start + count - 1, as a view that the next call overwrites."""
        skip = start % 8
        return self._draw(start // 8, (skip + count + 7) // 8).view(np.uint16)[skip : skip + count]

    def bits32(self, start: int, count: int) -> NDArray[np.uint32]:
        """Elements start ... start + count - 1, as a view that the next call overwrites."""
        skip = start % 4
        return self._draw(start // 4, (skip + count + 3) // 4).view(np.uint32)[skip : skip + count]

    def _draw(self, first: int, counters: int) -> NDArray[np.uint64]:
        """The 128 bits of each of `counters` counters from `first` on → (2 * counters,) uint64."""
        if len(self._words) < counters:
            self._words = np.empty((counters, 2), np.uint64)
        for low in range(0, counters, _LANES):
            lanes = min(_LANES, counters - low)
            even, odd = self._even[:, :lanes], self._odd[:, :lanes]
            product, high = self._product[:, :lanes], self._high[:, :lanes]
            np.add(self._ascending[:lanes], np.uint64(first + low), out=high[0])
            np.bitwise_and(high[0], _LOW, out=even[0])
            np.right_shift(high[0], _32, out=odd[0])
            even[1] = 0
            odd[1] = 0
            _mix(even, odd, product, high, self._keys)
            np.left_shift(odd, _32, out=product)
            np.bitwise_or(even, product, out=self._words[low : low + lanes].T)  # words 0, 1, then 2, 3
        return self._words[:counters].reshape(-1)


def bits16(seed: int, name: str, start: int, count: int) -> NDArray[np.uint16]:
    """16 random bits for each of the elements start ... start + count - 1 of `name`: (count,) uint16."""
    return _filled(Stream(seed, name).bits16, np.empty(count, np.uint16), start, 8 * _LANES)


def bits32(seed: int, name: str, start: int, count: int) -> NDArray[np.uint32]:
    """32 random bits for each of the elements start ... start + count - 1 of `name`: (count,) uint32."""
    return _filled(Stream(seed, name).bits32, np.empty(count, np.uint32), start, 4 * _LANES)


def _filled(draw: Callable[[int, int], NDArray[T]], out: NDArray[T], start: int, at_once: int) -> NDArray[T]:
    for low in range(0, len(out), at_once):
        high = min(low + at_once, len(out))
        out[low:high] = draw(start + low, high - low)
    return out


def _key_schedule(key: tuple[int, int]) -> list[NDArray[np.uint64]]:
    """The key of each round as a (2, 1) array."""
    return [
        np.array([[(word + r * step) & 0xFFFFFFFF] for word, step in zip(key, _WEYL, strict=True)], np.uint64)
        for r in range(_ROUNDS)
    ]


def _mix(
    even: NDArray[np.uint64],
    odd: NDArray[np.uint64],
    product: NDArray[np.uint64],
    high: NDArray[np.uint64],
    keys: list[NDArray[np.uint64]],
) -> None:
    """Ten rounds in place. All (2, n) uint64 holding 32-bit words; `product` and `high` are scratch."""
    for key in keys:
        np.multiply(even, _MULTIPLIERS, out=product)
        np.right_shift(product, _32, out=high)
        np.bitwise_xor(odd, key, out=odd)
        np.bitwise_xor(high[::-1], odd, out=even)
        np.bitwise_and(product[::-1], _LOW, out=odd)
