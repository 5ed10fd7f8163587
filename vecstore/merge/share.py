"""What a merge method is given of one tensor: each behaviour's voice, and the tensor's pieces, as often as it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

from pv.vecstore.merge import loops
from pv.vecstore.merge.cut import Cut
from pv.vecstore.native.kernels import Delta, Values
from pv.vecstore.tensors.arithmetic import scaled_sum
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import to_f32

__all__ = ["Piece", "Place", "Share", "Tensor", "Voice", "Weighed"]


class Weighed(Protocol):
    """What is said of a delta: of one that is at hand (`Share`), or that is read piece by piece (`plan.Operand`)."""

    @property
    def weight(self) -> float: ...

    @property
    def key(self) -> str: ...

    @property
    def cut(self) -> Cut | None: ...


@dataclass(frozen=True, slots=True)
class Share:
    """`weight` times `delta`, (n,) fp32. `key` stands for the delta where something is drawn by lot for it.

    The key is that of the vector, or of the sum of vectors, and not the behaviour's name: names order and draw nothing.
    `cut` is what is kept of the delta, where that was found over the whole model.
    """

    weight: float
    delta: F32
    key: str = ""
    cut: Cut | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """The base's tensor: its name, its shape, and its values, flat (n,) fp32, for the rules that look at them."""

    name: str
    shape: tuple[int, ...]
    base: Callable[[], F32]


@dataclass(frozen=True, slots=True)
class Voice:
    """A behaviour's weight, in fp32 and not 0, its key and cut (`Share`). Its delta is where it is in a piece: `at`."""

    weight: float
    key: str
    at: int
    cut: Cut | None = None


@dataclass(frozen=True)
class Piece:
    """Elements from `start` on: the base's, and what each behaviour adds, without its weight."""

    start: int
    size: int
    deltas: Sequence[Delta]
    values: Callable[[], Values]

    @cached_property
    def own(self) -> Values:
        """The base's."""
        return self.values()

    @cached_property
    def base(self) -> F32:
        return to_f32(self.own.raw, self.own.dtype)

    def against(self, one: Delta) -> Values:
        """What a loop over a delta is to be given as the base: the base, if the delta needs it."""
        return self.own if one.whole else one.values

    def tau(self, voice: Voice) -> F32:
        """What a behaviour adds, without its weight: (size,) fp32, not to be written into."""
        one = self.deltas[voice.at]
        if one.whole:
            return loops.tau(one, self.base)
        return to_f32(one.values.raw, one.values.dtype)

    def scaled(self, voice: Voice) -> F32:
        """The same times its weight."""
        return scaled_sum([(voice.weight, self.tau(voice))])


class Tensor(Protocol):
    """A tensor of the base, and what is added to it."""

    name: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int: ...

    @property
    def width(self) -> int:
        """Elements of a row, which is the last dimension."""
        ...

    def pieces(self, *, rows: bool = False) -> Iterator[Piece]:
        """All of it, in order, each piece a multiple of tensors.reduce.BLOCK, or of whole `rows`; but for the last."""
        ...
