"""The inner loops of a build over a piece of a tensor: compiled where they can be, else in numpy; the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pv.registry.persona import Output
from pv.vecstore.native import kernels
from pv.vecstore.native.kernels import KINDS, Delta, Result, Values
from pv.vecstore.tensors.arithmetic import apply, scaled_sum, single
from pv.vecstore.tensors.array import F32, Raw, storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import stream_key
from pv.vecstore.tensors.rounding import round_to

__all__ = ["Rounding", "add", "cut", "delta", "f32", "fits", "tau", "ties", "values"]


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


def f32(own: Values) -> F32:
    return to_f32(own.raw, own.dtype)


def cut(one: Delta, part: slice) -> Delta:
    """Some of its elements."""
    return replace(one, values=Values(one.values.raw[part], one.values.dtype))


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
