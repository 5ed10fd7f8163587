"""The compiled loops against the numpy code that defines them, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.merging import combine

from pv.registry.combine import Combine
from pv.registry.persona import Output
from pv.vecstore.merge import loops
from pv.vecstore.merge.loops import Rounding
from pv.vecstore.merge.selection import Trim
from pv.vecstore.native import kernels
from pv.vecstore.native.compile import LIBRARY, compile_kernels
from pv.vecstore.native.kernels import Delta, Values
from pv.vecstore.native.library import library, numpy_only
from pv.vecstore.tensors.arithmetic import apply
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import stream_key
from pv.vecstore.tensors.rounding import round_to

compiled = pytest.mark.skipif(
    not kernels.available(), reason="the kernels are not compiled here (make install)"
)

DTYPES = st.sampled_from(["F32", "BF16", "F16"])
SIZES = st.sampled_from([0, 1, 7, 16, 2047, 2048, 2049, 5000])
WEIGHTS = st.sampled_from([-2.0, -1.0, -0.3, 1e-38, 0.1, 0.5, 1.0, 3.0])


def _bits(seed: int, dtype: str, size: int, kind: str) -> np.ndarray:
    """Storage integers: any pattern at all, ordinary weights, or few values that often cancel and tie."""
    rng = np.random.default_rng(seed)
    storage = storage_dtype(dtype)
    if kind == "any":
        return rng.integers(0, 1 << (8 * storage.itemsize), size, np.uint64).astype(storage)
    scale = {"ordinary": 0.02, "tiny": 1e-39, "large": 3e38 if dtype != "F16" else 6e4}.get(kind, 1.0)
    values = rng.integers(-2, 3, size) if kind == "coarse" else rng.standard_normal(size)
    with np.errstate(over="ignore"):
        return round_to((values * scale).astype(np.float32), dtype, "nearest", seed=0, name="", start=0)


KINDS = st.sampled_from(["any", "ordinary", "tiny", "large", "coarse"])


@st.composite
def operands(draw: Any) -> tuple[Values, list[Delta]]:
    size, seed = draw(SIZES), draw(st.integers(0, 2**32))
    dtype = draw(DTYPES)
    own = loops.values(_bits(seed, dtype, size, draw(KINDS)), dtype)
    deltas = []
    for at in range(draw(st.integers(0, 4))):
        its = draw(DTYPES)
        raw = _bits(seed + at + 1, its, size, draw(KINDS))
        deltas.append(
            loops.delta(raw, its, whole=draw(st.booleans()), weight=float(np.float32(draw(WEIGHTS))))
        )
    return own, deltas


@st.composite
def roundings(draw: Any) -> Rounding:
    mode = draw(st.sampled_from(["nearest", "stochastic"]))
    return Rounding("a.weight", draw(DTYPES), Output(rounding=mode, seed=draw(st.integers(0, 9))))


@compiled
@settings(max_examples=300)
@given(operands(), roundings(), st.sampled_from([0, 1, 8, 1 << 20, (1 << 35) + 3]))
def test_add(given_: tuple[Values, list[Delta]], rounding: Rounding, start: int) -> None:
    own, deltas = given_
    fast, counted = loops.add(own, deltas, rounding, start)
    with numpy_only(), np.errstate(all="ignore"):
        slow, expected = loops.add(own, deltas, rounding, start)
    assert fast.tobytes() == slow.tobytes()
    assert (counted.moved, counted.lost) == (expected.moved, expected.lost)


@compiled
@settings(max_examples=300)
@given(
    operands().filter(lambda given_: given_[1]),
    roundings(),
    st.sampled_from([1e-9, 0.05, 0.3, 0.5, 0.9, 1.0]),
    st.sampled_from(["weighted", "unweighted"]),
    st.sampled_from(["mean", "weighted_mean", "sum"]),
    st.sampled_from([1.0, 0.7, -2.0]),
    st.sampled_from(["plus", "none"]),
    st.sampled_from([16, 1000, 5000]),
)
def test_ties(
    given_: tuple[Values, list[Delta]],
    rounding: Rounding,
    density: float,
    elect: str,
    merge: str,
    scale: float,
    undecided: str,
    piece: int,
) -> None:
    """The trim found in rounds over pieces, and the rule over a piece: as the rule over the whole tensor in numpy."""
    own, deltas = given_
    if merge == "weighted_mean":
        deltas = [Delta(one.values, one.whole, abs(one.weight)) for one in deltas]
    base = to_f32(own.raw, own.dtype)
    with np.errstate(all="ignore"):
        taus = [to_f32(d.values.raw, d.values.dtype) - (base if d.whole else np.float32(0)) for d in deltas]
        # minus 0 changes -0, which is all the same here: it is compared and multiplied, never looked at
        rule = Combine.of(
            "ties", density=density, elect=elect, merge=merge, lambda_=scale, undecided=undecided
        )
        added = combine(rule, [(d.weight, tau) for d, tau in zip(deltas, taus, strict=True)])
        name, output = rounding.name, rounding.output
        wanted = round_to(
            apply(base, added), rounding.dtype, output.rounding, seed=output.seed, name=name, start=0
        )
    size = own.raw.size
    parts = [slice(low, low + piece) for low in range(0, max(size, 1), piece)]
    trims = [Trim(size, max(1, int(density * size))) for _ in deltas]
    while looking := [at for at, trim in enumerate(trims) if not trim.done]:
        for part in parts:
            for at in looking:
                trims[at].look(_cut(own, part), _part(deltas[at], part))
        for at in looking:
            trims[at].turn()
    got, moved = b"", 0
    for part in parts:
        on = [trim.on(_part(one, part)) for trim, one in zip(trims, deltas, strict=True)]
        out, done = loops.ties(
            _cut(own, part),
            on,
            rounding,
            part.start,
            elect=elect,
            merge=merge,
            scale=scale,
            undecided=undecided,
        )
        got, moved = got + out.tobytes(), moved + done.moved
    assert got == wanted.tobytes()
    assert moved == np.count_nonzero(added)


def _cut(values: Values, part: slice) -> Values:
    return Values(values.raw[part], values.dtype)


def _part(one: Delta, part: slice) -> Delta:
    return Delta(_cut(one.values, part), one.whole, one.weight)


def test_other_dtypes_are_widened_first() -> None:
    raw = np.arange(256, dtype=np.uint8)
    assert loops.values(raw, "F8_E4M3").dtype == "F32"
    with np.errstate(all="ignore"):
        out, _ = loops.add(loops.values(raw, "F8_E5M2"), (), Rounding("t", "F8_E5M2", Output()), 0)
    assert out.tobytes() == raw.tobytes()


def test_no_bits_are_drawn_where_nothing_is_rounded() -> None:
    assert Rounding("t", "F32", Output()).key is None
    assert Rounding("t", "BF16", Output(rounding="nearest")).key is None
    assert Rounding("t", "BF16", Output(seed=3)).key == stream_key(3, "t")


@compiled
def test_the_library_is_of_this_source(tmp_path: Any) -> None:
    assert compile_kernels(tmp_path / LIBRARY.name) is None
    assert (tmp_path / LIBRARY.name).is_file()
    with numpy_only():
        assert library() is None
    assert library() is not None
