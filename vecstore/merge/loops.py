"""The inner loops of a build over a piece of a tensor: compiled where they can be, else in numpy; the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pv.registry.persona import Output
from pv.vecstore.native import kernels
from pv.vecstore.native.kernels import KINDS, Delta, Result, Values
from pv.vecstore.tensors.arithmetic import apply, scaled_sum, single
from pv.vecstore.tensors.array import F32, Raw, storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import stream_key
from pv.vecstore.tensors.rounding import round_to

__all__ = ["Rounding", "Trim", "add", "delta", "fits", "tau", "ties", "values"]

ALL = 1 << 15  # counts of the upper 15 bits of a magnitude
LOW = 1 << 16


@dataclass(frozen=True, slots=True)
class Rounding:
    """How a tensor is written: the dtype, and which bits are drawn for it."""

    name: str
    dtype: str
    output: Output

    @property
    def key(self) -> tuple[int, int] | None:
        drawn = self.output.rounding == "stochastic" and self.dtype != "F32"
        return stream_key(self.output.seed, self.name) if drawn else None


def fits(dtype: str) -> bool:
    """Whether compiled loops can write this."""
    return kernels.available() and dtype in KINDS


def values(raw: Raw | F32, dtype: str) -> Values:
    """Elements that the loops can read."""
    if dtype not in KINDS:
        raw, dtype = to_f32(raw, dtype), "F32"
    return Values(np.ascontiguousarray(raw).view(storage_dtype(dtype)), dtype)


def delta(raw: Raw | F32, dtype: str, *, whole: bool, weight: float) -> Delta:
    """A term; its weight is one of single precision."""
    return Delta(values(raw, dtype), whole, weight)


def add(own: Values, deltas: Sequence[Delta], rounding: Rounding, start: int) -> tuple[Raw, Result]:
    """own + Σ wᵢ·δᵢ, rounded: (n,) storage integers. Without deltas, own alone. `start`: of its first element."""
    deltas = [one for one in deltas if one.weight != 0]
    if fits(rounding.dtype):
        out = np.empty(own.raw.size, storage_dtype(rounding.dtype))
        done = kernels.add(own, deltas, Values(out, rounding.dtype), key=rounding.key, start=start)
        return out, done
    base, moved = to_f32(own.raw, own.dtype), 0
    x = base
    if deltas:
        total = scaled_sum([(one.weight, tau(one, base)) for one in deltas])
        x, moved = apply(base, total), int(np.count_nonzero(total))
    return _rounded(base, x, moved, rounding, start)


def tau(one: Delta, base: F32) -> F32:
    """The delta in fp32, without its weight."""
    found = to_f32(one.values.raw, one.values.dtype)
    with np.errstate(all="ignore"):  # what is not finite is seen at the end
        return found - base if one.whole else found


def _rounded(base: F32, x: F32, moved: int, rounding: Rounding, start: int) -> tuple[Raw, Result]:
    dtype, output = rounding.dtype, rounding.output
    out = round_to(x, dtype, output.rounding, start=start, seed=output.seed, name=rounding.name)
    lost = ~np.isfinite(to_f32(out, dtype)) & np.isfinite(base)
    return out, Result(moved, int(np.count_nonzero(lost)))


class Trim:
    """The largest k magnitudes of a delta that is seen piece by piece, in up to three rounds; of equal ones the first.

    `look` at every piece, then `turn`; until `done`. Then `threshold` and `ties_until` are as `ties` takes them.
    """

    def __init__(self, size: int, keep: int) -> None:
        self.threshold: int | None = None
        self.ties_until = 0
        self.done = keep >= size
        self._wanted, self._prefix = keep, -1
        self._counts = np.zeros(ALL, np.uint32)
        self._at = 0

    def look(self, own: Values, one: Delta) -> None:
        if self.threshold is None:
            prefix = None if self._prefix < 0 else self._prefix
            kernels.magnitudes(own, one, self._counts, prefix=prefix)
        elif self.ties_until == 0:
            found = kernels.nth_tie(own, self.on(one), self._wanted)
            if found > 0:
                self.ties_until = self._at + found
            else:
                self._wanted += found
            self._at += own.raw.size

    def turn(self) -> None:
        """All pieces were seen."""
        if self.threshold is not None:
            self.done = True
            return
        above = np.cumsum(self._counts[::-1], dtype=np.int64)  # from the largest down
        at = int(np.searchsorted(above, self._wanted))
        bucket = len(self._counts) - 1 - at
        self._wanted -= int(above[at - 1]) if at else 0
        if self._prefix < 0:
            self._prefix, self._counts = bucket, np.zeros(LOW, np.uint32)
            return
        self.threshold = self._prefix << 16 | bucket
        if self._wanted == int(self._counts[bucket]):  # all of the equal ones are kept
            self.ties_until, self.done = 1 << 62, True

    def on(self, one: Delta) -> Delta:
        """The delta, trimmed so."""
        return Delta(one.values, one.whole, abs(one.weight), one.weight < 0, self.threshold, self.ties_until)


def ties(
    own: Values,
    deltas: Sequence[Delta],
    rounding: Rounding,
    start: int,
    *,
    elect: str,
    merge: str,
    scale: float,
    undecided: str = "plus",
) -> tuple[Raw, Result]:
    """own + what TIES makes of trimmed deltas, rounded. Compiled only: numpy's is `methods.ties`."""
    out = np.empty(own.raw.size, storage_dtype(rounding.dtype))
    done = kernels.ties(
        own,
        deltas,
        Values(out, rounding.dtype),
        weighted=elect == "weighted",
        decided=undecided == "none",
        merge=merge,
        scale=float(single(scale, "lambda")),
        key=rounding.key,
        start=start,
    )
    return out, done
