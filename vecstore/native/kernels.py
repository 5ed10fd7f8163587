"""The compiled loops, called with arrays: see kernels.c, and the numpy code that defines what they compute."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.native.library import library

__all__ = [
    "KINDS",
    "Apart",
    "Delta",
    "Moved",
    "Result",
    "Values",
    "add",
    "available",
    "magnitudes",
    "measure",
    "nth_tie",
    "pairs",
    "step",
    "ties",
]

KINDS = {"F32": 0, "BF16": 1, "F16": 2}
"""The dtypes that the loops read and write."""
STEP = 2048
SCRATCH = 1 << 18  # floats: with more behaviours, fewer elements at a time
MERGES = {"mean": 0, "weighted_mean": 1, "sum": 2}


class _Source(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("whole", ctypes.c_int32),
        ("weight", ctypes.c_float),
        ("negated", ctypes.c_uint32),
        ("threshold", ctypes.c_uint32),
        ("all", ctypes.c_uint32),
        ("ties_until", ctypes.c_int64),
    )


class _Target(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("kind", ctypes.c_int32),
        ("stochastic", ctypes.c_int32),
        ("key", ctypes.c_uint32 * 2),
        ("start", ctypes.c_int64),
        ("moved", ctypes.c_int64),
        ("lost", ctypes.c_int64),
    )


@dataclass(frozen=True, slots=True)
class Values:
    """Flat elements of one of the KINDS: storage integers, or fp32."""

    raw: NDArray[Any]
    dtype: str


@dataclass(frozen=True, slots=True)
class Delta:
    """What is added, times `weight`: `values`, or if they are a `whole` tensor, those minus the base.

    For `ties`: `negated`, and what its trim keeps: magnitudes above `threshold` (None: all), and those equal to it
    before the index `ties_until`.
    """

    values: Values
    whole: bool
    weight: float = 1.0
    negated: bool = False
    threshold: int | None = None
    ties_until: int = 0

    def struct(self) -> _Source:
        return _Source(
            self.values.raw.ctypes.data,
            KINDS[self.values.dtype],
            self.whole,
            self.weight,
            self.negated,
            self.threshold or 0,
            self.threshold is None,
            self.ties_until,
        )


@dataclass(frozen=True, slots=True)
class Result:
    """`moved` elements have a delta; `lost` were finite and are not any more."""

    moved: int
    lost: int


def available() -> bool:
    return library() is not None


def add(
    base: Values, deltas: Sequence[Delta], out: Values, *, key: tuple[int, int] | None, start: int
) -> Result:
    """base + Σ wᵢ·δᵢ into `out`, (n,) each; `key` draws the rounding's bits, None rounds to nearest.

    `start` is the index of the first element in its tensor. Without deltas, the base is rounded.
    """
    target = _target(out, key, start)
    _call(
        "pv_add",
        *_base(base),
        _sources(deltas),
        ctypes.c_int32(len(deltas)),
        _size(base),
        ctypes.byref(target),
    )
    return Result(target.moved, target.lost)


def ties(
    base: Values,
    deltas: Sequence[Delta],
    out: Values,
    *,
    weighted: bool,
    decided: bool,
    merge: str,
    scale: float,
    key: tuple[int, int] | None,
    start: int,
) -> Result:
    """base + TIES of the trimmed deltas into `out`: (n,) each. `decided`: a ballot of 0 elects nothing. As `add`."""
    target = _target(out, key, start)
    step = max(16, min(STEP, SCRATCH // (2 * len(deltas))))
    scratch = np.empty(2 * len(deltas) * step, np.float32)
    _call(
        "pv_ties",
        *_base(base),
        _sources(deltas),
        ctypes.c_int32(len(deltas)),
        _size(base),
        ctypes.c_int32(weighted | decided << 1),
        ctypes.c_int32(MERGES[merge]),
        ctypes.c_float(scale),
        ctypes.c_void_p(scratch.ctypes.data),
        ctypes.c_int64(step),
        ctypes.byref(target),
    )
    return Result(target.moved, target.lost)


class Moved(ctypes.Structure):
    """Of a step: how many elements it changes, Σ step², Σ base², the largest |step|; whether one is undefined."""

    _fields_ = (
        ("changed", ctypes.c_int64),
        ("step2", ctypes.c_double),
        ("base2", ctypes.c_double),
        ("largest", ctypes.c_float),
        ("undefined", ctypes.c_int32),
    )


def step(base: Values, before: Sequence[Delta], after: Sequence[Delta]) -> Moved:
    """Σ after - Σ before, weights and all, looked at. An observation: its last digits may differ between machines."""
    moved = Moved()
    _call(
        "pv_step",
        *_base(base),
        _sources(before),
        ctypes.c_int32(len(before)),
        _sources(after),
        ctypes.c_int32(len(after)),
        _size(base),
        ctypes.byref(moved),
    )
    return moved


class Apart(ctypes.Structure):
    """Of blocks a and b: how many elements differ, Σ (b-a)², Σ a², Σ b², Σ ab, the largest |b-a| (NaN if one is)."""

    _fields_ = (
        ("changed", ctypes.c_int64),
        ("step2", ctypes.c_double),
        ("a2", ctypes.c_double),
        ("b2", ctypes.c_double),
        ("ab", ctypes.c_double),
        ("largest", ctypes.c_double),
    )


def measure(a: Values, b: Values) -> Apart:
    """Two blocks of as many elements. As `step`, an observation."""
    apart = Apart()
    _call("pv_measure", *_base(a), *_base(b), _size(a), ctypes.byref(apart))
    return apart


def pairs(
    base: Values, deltas: Sequence[Delta]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Of every two deltas, without their weights, (k, k) each, the upper triangle with the diagonal: dot products,
    elements that both move, and those moved to the same side. As `step`, an observation."""
    k = len(deltas)
    dots, overlap, agree = np.zeros((k, k)), np.zeros((k, k), np.int64), np.zeros((k, k), np.int64)
    scratch, signs = np.empty(k * STEP, np.float32), np.empty(2 * k * STEP // 64, np.uint64)
    _call(
        "pv_pairs",
        *_base(base),
        _sources(deltas),
        ctypes.c_int32(k),
        _size(base),
        *(ctypes.c_void_p(array.ctypes.data) for array in (dots, overlap, agree, scratch, signs)),
    )
    return dots, overlap, agree


def magnitudes(base: Values, delta: Delta, counts: NDArray[np.uint32], *, prefix: int | None = None) -> None:
    """Count |δ| by its upper 15 bits into `counts`, (32768,); with a `prefix`, those that have it by the lower 16."""
    given = -1 if prefix is None else prefix
    _call(
        "pv_magnitudes",
        *_base(base),
        ctypes.byref(delta.struct()),
        _size(base),
        ctypes.c_int64(given),
        ctypes.c_void_p(counts.ctypes.data),
    )


def nth_tie(base: Values, delta: Delta, wanted: int) -> int:
    """The index after the `wanted`-th |δ| that equals the threshold; if there are fewer, minus how many there are."""
    found = _function("pv_nth_tie")
    found.restype = ctypes.c_int64
    at: int = found(*_base(base), ctypes.byref(delta.struct()), _size(base), ctypes.c_int64(wanted))
    return at


def _function(name: str) -> Any:
    found = library()
    assert found is not None, "asked for compiled loops where there are none"
    return getattr(found, name)


def _call(name: str, *arguments: Any) -> None:
    function = _function(name)
    function.restype = None
    function(*arguments)


def _base(base: Values) -> tuple[ctypes.c_void_p, ctypes.c_int32]:
    return ctypes.c_void_p(base.raw.ctypes.data), ctypes.c_int32(KINDS[base.dtype])


def _size(values: Values) -> ctypes.c_int64:
    return ctypes.c_int64(values.raw.size)


def _sources(deltas: Sequence[Delta]) -> Any:
    return (_Source * len(deltas))(*(delta.struct() for delta in deltas))


def _target(out: Values, key: tuple[int, int] | None, start: int) -> _Target:
    target = _Target(out.raw.ctypes.data, KINDS[out.dtype], key is not None, (0, 0), start, 0, 0)
    if key is not None:
        target.key[0], target.key[1] = key
    return target
