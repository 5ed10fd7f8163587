"""A few kilobytes that stand for a set of tensors: inner products of two sets, estimated from their sketches.

A count sketch (Charikar, Chen and Farach-Colton 2002), keyed by tensor name: element i of a tensor is added, with a
random sign, to one of WIDTH random sums. The inner product of the sums of two sets is an unbiased estimate of that of
the sets, with a standard deviation of at most sqrt(2 / WIDTH) of the product of their norms. There are BANDS of sums,
one for each depth of the model, so that each depth can be looked at. The estimate for all is the sum over bands; of
sets that are spread over the depth, its standard deviation is about sqrt(1 / (BANDS * WIDTH)) of that product: 0.016.

The key depends on nothing but ALGORITHM and the tensor's name: any two sketches of one base can be compared. Sums are
kept in eight bits, with the exact norm of what was sketched beside them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.registry.depth import layer_of, stacks
from pv.registry.errors import FormatError

__all__ = ["ALGORITHM", "BANDS", "SHAPES", "WIDTH", "Sketch", "Sketching"]

ALGORITHM = 1  # of the key, the bands and the width together: sketches of different ones do not compare
BANDS = 8
WIDTH = 512
SHAPES = {"sums": (BANDS, WIDTH), "squares": (BANDS,)}
_CHUNK = 1 << 20  # elements at a time
_SIGN = np.uint16(1 << 15)
_STEPS = 127
_MOST = 1e30
F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sketch:
    """`sums` (BANDS, WIDTH), and the squared norm of what was added to each band, (BANDS,)."""

    sums: F64
    squares: F64

    @property
    def norm(self) -> float:
        """Exact, not estimated."""
        return math.sqrt(float(self.squares.sum()))

    def bands(self, other: Sketch) -> F64:
        """Estimated inner products, by band."""
        found: F64 = (self.sums * other.sums).sum(axis=1)
        return found

    def dot(self, other: Sketch) -> float:
        """The estimated inner product."""
        return float(self.bands(other).sum())

    def cosine(self, other: Sketch) -> float:
        """Estimated, so it is cut off at 1; 0 where one of them is nothing."""
        norms = self.norm * other.norm
        return max(-1.0, min(1.0, self.dot(other) / norms)) if norms else 0.0

    def to_json(self) -> dict[str, Any]:
        """What keeps it: each band's sums in steps of a 127th of its largest."""
        largest = np.abs(self.sums).max(axis=1, keepdims=True)
        steps = np.rint(self.sums / np.where(largest > 0, largest, 1) * _STEPS).astype(np.int8)
        return {
            "algorithm": ALGORITHM,
            "largest": [float(np.float32(x)) for x in largest[:, 0]],
            "squares": [float(np.float32(x)) for x in self.squares],
            "sums": base64.b64encode(steps.tobytes()).decode(),
        }

    @staticmethod
    def of_json(document: object) -> Sketch | None:
        """None for one of another algorithm. Raises FormatError for what no sketch says."""
        match document:
            case {"algorithm": int(algorithm)} if algorithm != ALGORITHM:
                return None
            case {"largest": [*largest], "squares": [*squares], "sums": str(text)}:
                pass
            case _:
                raise FormatError("a sketch has algorithm, largest, squares and sums")
        try:
            steps = np.frombuffer(base64.b64decode(text, validate=True), np.int8)
        except (binascii.Error, ValueError) as error:
            raise FormatError("the sums of a sketch are base64") from error
        if steps.size != BANDS * WIDTH or not all(_are_sizes(one) for one in (largest, squares)):
            raise FormatError(f"a sketch has {BANDS} bands of {WIDTH} sums, and two numbers for each")
        sums = steps.reshape(BANDS, WIDTH) * (np.array(largest, np.float64)[:, None] / _STEPS)
        return Sketch(sums, np.array(squares, np.float64))


class Sketching:
    """Tensors of a base, added one after the other: none is held longer than it takes.

    `names` are those of all tensors of the base, whichever are added: they say how deep each one is.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._stacks = stacks(names)
        self._sums = np.zeros((BANDS, WIDTH))
        self._squares = np.zeros(BANDS)

    def add(self, name: str, values: NDArray[np.float32]) -> None:
        flat, band = values.reshape(-1), band_of(name, self._stacks)
        draws = np.random.Philox(key=_key(name))
        for low in range(0, flat.size, _CHUNK):
            part = flat[low : low + _CHUNK].astype(np.float64)
            lots = draws.random_raw(-(-part.size // 4)).astype("<u8", copy=False).view("<u2")[: part.size]
            self._squares[band] += float(np.dot(part, part))
            np.negative(part, out=part, where=lots >= _SIGN)
            self._sums[band] += np.bincount(lots & (WIDTH - 1), part, WIDTH)

    def done(self) -> Sketch:
        return Sketch(self._sums, self._squares)


def band_of(name: str, layers: Mapping[str, int]) -> int:
    """How deep a tensor is: what comes before the layers is in the first band, what comes after them in the last."""
    at = layer_of(name, layers)
    if at is None:
        return 0 if "embed" in name else BANDS - 1
    layer, count = at
    return layer * BANDS // count


def _key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"pv:sketch:{ALGORITHM}\n{name}".encode()).digest()[:16], "little")


def _are_sizes(values: list[object]) -> bool:
    return len(values) == BANDS and all(
        isinstance(x, int | float) and type(x) is not bool and 0 <= x <= _MOST for x in values
    )
