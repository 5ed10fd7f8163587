"""A tensor that is read piece by piece, in order, so that a build's memory does not grow with the model's tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from pv.registry.manifest import TensorRow
from pv.registry.packs.packfile import CHUNK
from pv.vecstore.packs.read import Pack, Reference
from pv.vecstore.tensors.array import F32, Raw, storage_dtype
from pv.vecstore.vectors.encodings.shapes import by_row

__all__ = ["PIECE", "Expanded", "Pieces", "Scaled", "Streamed"]

PIECE = CHUNK
"""Elements of a piece that is decoded. No result depends on it: it is what packs are decoded in."""


class Pieces(Protocol):
    """What a vector says of one tensor: storage integers of `dtype`, or fp32 itself.

    If it is `whole`, they take the place of the base's; else they are the delta.
    """

    dtype: str
    whole: bool

    def next(self, own: Raw) -> Raw | F32:
        """The next elements, where the base has `own`: PIECE of them, if their base is not `light`.

        With the last one, all have been checked.
        """
        ...


class Streamed:
    """A part of a pack, decoded as it is asked for. `reference` sees the base's elements at hand."""

    def __init__(
        self,
        pack: Pack,
        name: str,
        part: str,
        row: TensorRow,
        *,
        whole: bool,
        reference: Callable[[Callable[[int, int], Raw]], Reference | None],
    ) -> None:
        self.dtype, self.whole = row.dtype, whole
        self._own: Raw = np.empty(0, np.uint8)
        self._left = row.numel
        self._stream: Iterator[tuple[int, Raw]] = pack.stream(name, part, reference(self._base))

    def next(self, own: Raw) -> Raw:
        self._own = own
        _, raw = next(self._stream, (0, np.empty(0, storage_dtype(self.dtype))))
        self._left -= len(raw)
        if not self._left:
            for _ in self._stream:  # which ends with comparing the id
                pass
        return raw

    def _base(self, start: int, stop: int) -> Raw:
        return self._own[: stop - start]


class Expanded:
    """A delta whose stored parts are at hand, and are less than it is: its elements are made as they are asked for."""

    dtype, whole = "F32", False

    def __init__(self, span: Callable[[int, int], F32]) -> None:
        self._span, self._at = span, 0

    def next(self, own: Raw) -> F32:
        start, self._at = self._at, self._at + len(own)
        return self._span(start, self._at)


class Scaled:
    """Integers that are decoded as they are asked for, times the scale of their row."""

    dtype, whole = "F32", False

    def __init__(self, q: Streamed, scale: F32, width: int) -> None:
        self._q, self._scale, self._width, self._at = q, scale, width, 0

    def next(self, own: Raw) -> F32:
        start, self._at = self._at, self._at + len(own)
        q = self._q.next(own).view(np.int8).astype(np.float32)
        return np.multiply(q, by_row(self._scale, self._width, start, self._at), out=q)
