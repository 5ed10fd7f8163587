"""The order-preserving map of bit patterns: one to one, and in the order of the values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import array, same

from pv.registry.dtypes import DTYPES
from pv.vecstore.packs.codecs.ordered import exponent as exponent_of
from pv.vecstore.packs.codecs.ordered import from_ordered, to_ordered
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.philox import bits32

NAMES = sorted(row.name for row in DTYPES.values() if row.bits % 8 == 0)
ORDERED = sorted(FLOATS - {"F32"})  # small enough to try every pattern


@pytest.mark.parametrize("dtype", ORDERED)
def test_ordered_is_a_bijection_on_every_pattern(dtype: str) -> None:
    layout = DTYPES[dtype]
    every = np.arange(1 << (8 * layout.itemsize), dtype=np.uint32).astype(storage_dtype(layout.name))
    ordered = to_ordered(every, layout)
    assert np.array_equal(np.sort(ordered), every)
    assert same(from_ordered(ordered, layout), every)
    assert np.array_equal(np.sort(from_ordered(every, layout)), every)


@pytest.mark.parametrize("dtype", ORDERED)
def test_ordered_has_the_order_of_the_values(dtype: str) -> None:
    layout = DTYPES[dtype]
    every = np.arange(1 << (8 * layout.itemsize), dtype=np.uint32).astype(storage_dtype(layout.name))
    rising = from_ordered(every, layout)  # patterns in the order of their ordered integers
    values = to_f32(rising, dtype)
    values = values[~np.isnan(values)]
    zeros = np.flatnonzero(values == 0)
    assert zeros.tolist() == [zeros[0], zeros[0] + 1]  # -0 is just below +0 ...
    assert np.signbit(values[zeros]).tolist() == [True, False]
    assert (np.diff(values)[np.isfinite(values[1:]) & np.isfinite(values[:-1])] >= 0).all()
    assert np.count_nonzero(np.diff(np.delete(values, zeros[0])) == 0) == 0  # ... and all else is strict


@given(st.sampled_from(["F32", "F64"]), st.floats(allow_nan=False), st.floats(allow_nan=False))
def test_wide_floats_are_ordered_too(dtype: str, a: float, b: float) -> None:
    layout = DTYPES[dtype]
    with np.errstate(over="ignore"):
        pair = np.array([a, b], f"<f{layout.itemsize}")
    low, high = to_ordered(pair.view(storage_dtype(layout.name)), layout).tolist()
    if pair[0] < pair[1]:
        assert low < high
    elif pair[0] > pair[1]:
        assert low > high
    else:
        assert abs(high - low) <= 1  # the two zeros, or one number


@given(st.lists(st.integers(0, (1 << 64) - 1), max_size=20))
def test_wide_floats_are_mapped_without_loss(patterns: list[int]) -> None:
    for dtype in ("F32", "F64"):
        layout = DTYPES[dtype]
        raw = np.array(patterns, np.uint64).astype(storage_dtype(layout.name))
        assert same(from_ordered(to_ordered(raw, layout), layout), raw)


@pytest.mark.parametrize("dtype", [d for d in NAMES if not DTYPES[d].is_float])
def test_integers_are_their_own_order(dtype: str) -> None:
    raw = bits32(4, "integers", 0, 100).astype(storage_dtype(dtype))
    assert same(to_ordered(raw, DTYPES[dtype]), raw)
    assert same(from_ordered(raw, DTYPES[dtype]), raw)


@pytest.mark.parametrize(("dtype", "bias"), [("BF16", 127), ("F16", 15), ("F32", 127)])
def test_the_exponent_field_is_the_magnitude(dtype: str, bias: int) -> None:
    tensor = array("exponents", dtype, 2000)
    values = to_f32(tensor.raw, dtype)
    normal = np.abs(values) >= np.finfo(np.float16).tiny
    assert normal.any()
    _, exponent = np.frexp(values[normal])  # value = m * 2**exponent with m in [0.5, 1)
    assert np.array_equal(exponent_of(tensor.raw, DTYPES[dtype])[normal].astype(int), exponent - 1 + bias)
