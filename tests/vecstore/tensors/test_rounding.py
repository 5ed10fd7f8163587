"""Rounding: nearest against torch, stochastic against exact fractions and against its own mean."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from pv.registry.errors import UsageError
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.tensors.philox import bits16, bits32
from pv.vecstore.tensors.rounding import round_to

NARROW = ("BF16", "F16", "F8_E4M3", "F8_E5M2")
TORCH = {
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
LARGEST = {"BF16": 0x7F7F, "F16": 0x7BFF, "F8_E4M3": 0x7E, "F8_E5M2": 0x7B}


def _nearest(x: np.ndarray, dtype: str) -> np.ndarray:
    return round_to(x, dtype, "nearest", seed=0, name="", start=0)


def _stochastic(x: np.ndarray, dtype: str, *, seed: int = 1, name: str = "w", start: int = 0) -> np.ndarray:
    return round_to(x, dtype, "stochastic", seed=seed, name=name, start=start)


def _codes(dtype: str) -> np.ndarray:
    storage = storage_dtype(dtype)
    return np.arange(1 << (8 * storage.itemsize), dtype=np.uint32).astype(storage)


def _hard_cases(dtype: str) -> np.ndarray:
    """Every value of the format, every midpoint of two neighbours, and the fp32 numbers beside each."""
    values = to_f32(_codes(dtype), dtype)
    values = np.unique(np.abs(values[np.isfinite(values)]))
    with np.errstate(over="ignore"):
        # A virtual neighbour of the largest.
        beyond = np.array([values[-1] + (values[-1] - values[-2])], np.float32)
        points = np.concatenate([values, beyond[np.isfinite(beyond)]])
    middles = points[:-1] + (points[1:] - points[:-1]) / 2
    bits = np.concatenate([points, middles]).view(np.uint32).astype(np.int64)
    near = np.clip((bits[:, None] + np.array([-1, 0, 1])).reshape(-1), 0, 0x7F800000).astype(np.uint32)
    special = np.array([0, 1, 0x7FFFFF, 0x800000, 0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, 0x7FFFFFFF])
    random = np.random.default_rng(5).integers(0, 1 << 31, 200_000)
    magnitudes = np.concatenate([near, special.astype(np.uint32), random.astype(np.uint32)])
    return np.concatenate([magnitudes, magnitudes | np.uint32(1 << 31)]).view(np.float32)


@pytest.mark.parametrize("dtype", NARROW)
def test_nearest_is_what_torch_does(dtype: str) -> None:
    x = _hard_cases(dtype)
    if dtype == "F8_E4M3":  # beyond 464 torch's versions differ
        x = x[~(np.abs(x) > 464)]
    ours = _nearest(x, dtype)
    theirs = torch.from_numpy(x).to(TORCH[dtype])
    nan = theirs.to(torch.float32).isnan().numpy()
    expected = theirs.view(torch.uint8 if ours.itemsize == 1 else torch.uint16).numpy()
    assert np.array_equal(np.isnan(to_f32(ours, dtype)), nan)
    assert np.array_equal(ours[~nan], expected[~nan])


@pytest.mark.parametrize("mode", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_representable_value_never_changes(dtype: str, mode: str) -> None:
    codes = _codes(dtype)  # all of them: zeros, subnormals, infinities, NaNs
    for seed in range(3):
        rounded = round_to(to_f32(codes, dtype), dtype, mode, seed=seed, name="w", start=0)
        assert np.array_equal(rounded, codes)


def test_f32_passes_through() -> None:
    x = np.random.default_rng(0).integers(0, 1 << 32, 1000, dtype=np.uint32).view(np.float32)
    for mode in ("nearest", "stochastic"):
        rounded = round_to(x, "F32", mode, seed=0, name="w", start=0)
        assert np.array_equal(rounded, x.view(np.uint32))


@pytest.mark.parametrize("mode", ["nearest", "stochastic"])
@pytest.mark.parametrize("dtype", NARROW)
def test_a_nan_stays_a_nan_with_its_sign(dtype: str, mode: str) -> None:
    payloads = np.array([0x7F800001, 0x7F80FFFF, 0x7FBFFFFF, 0x7FC00000, 0x7FFFFFFF], np.uint32)
    bits = np.concatenate([payloads, payloads | np.uint32(1 << 31)])
    codes = round_to(bits.view(np.float32), dtype, mode, seed=0, name="w", start=0)
    wide = to_f32(codes, dtype)
    assert np.isnan(wide).all()
    assert np.array_equal(np.signbit(wide), [False] * 5 + [True] * 5)
    assert ((wide.view(np.uint32) >> 22) & 1).all()  # quiet


def _expected(x: np.float32, dtype: str, random: int, random_bits: int) -> int:
    """The code that stochastic rounding owes, from exact fractions."""
    table = to_f32(_codes(dtype), dtype)
    positive = [(Fraction(float(v)), code) for code, v in enumerate(table[: LARGEST[dtype] + 1])]
    sign = int(np.signbit(x)) << (8 * storage_dtype(dtype).itemsize - 1)
    value = abs(Fraction(float(x)))
    low = max((v, code) for v, code in positive if v <= value)
    if low[0] == value:
        return low[1] | sign
    high = positive[low[1] + 1]
    share = (value - low[0]) / (high[0] - low[0])
    up = int(share * 2**random_bits) + random >= 2**random_bits
    return (high if up else low)[1] | sign


SMALL = st.one_of(
    st.floats(width=32, allow_nan=False, min_value=-57344, max_value=57344),
    st.floats(width=32, allow_nan=False, min_value=-(2**-6), max_value=2**-6),
    st.floats(width=32, allow_nan=False, min_value=-(2**-13), max_value=2**-13),
)


@given(x=SMALL, index=st.integers(0, 1 << 40), seed=st.integers(0, (1 << 53) - 1))
@example(x=2.0**-25, index=1, seed=0)
@example(x=float(np.float32(1e-45)), index=1, seed=0)
def test_stochastic_is_exact_given_its_random_bits(x: float, index: int, seed: int) -> None:
    r32 = int(bits32(seed, "w", index, 1)[0])
    for dtype in ("F8_E4M3", "F8_E5M2"):
        if abs(x) <= 448 or dtype == "F8_E5M2":
            got = _stochastic(np.array([x], np.float32), dtype, seed=seed, start=index)
            assert int(got[0]) == _expected(np.float32(x), dtype, r32, 32)


BF16_BITS = st.integers(0, 0x7F7F0000).map(lambda magnitude: np.uint32(magnitude))


@given(bits=BF16_BITS, index=st.integers(0, 1 << 40), negative=st.booleans())
def test_bf16_stochastic_is_exact_given_its_random_bits(bits: np.uint32, index: int, negative: bool) -> None:
    r16 = int(bits16(9, "w", index, 1)[0])
    x = (np.array([bits], np.uint32) | np.uint32(negative << 31)).view(np.float32)
    low = Fraction(float(to_f32(np.array([bits >> 16], np.uint16), "BF16")[0]))
    next_up = np.array([min((int(bits) >> 16) + 1, 0x7F7F)], np.uint16)
    step = Fraction(float(to_f32(next_up, "BF16")[0])) - low
    share = (abs(Fraction(float(x[0]))) - low) / step if step else Fraction(0)
    up = share * 2**16 + r16 >= 2**16
    assert int(_stochastic(x, "BF16", seed=9, start=index)[0]) == (int(bits) >> 16) + up | (negative << 15)


F16_TABLE = to_f32(_codes("F16"), "F16")[:0x7C00]


@given(
    x=st.one_of(
        st.floats(0, 65504, width=32), st.floats(0, 2**-13, width=32), st.floats(0, 2**-23, width=32)
    ),
    index=st.integers(0, 1 << 40),
)
def test_f16_stochastic_is_exact_given_its_random_bits(x: float, index: int) -> None:
    r32 = int(bits32(9, "w", index, 1)[0])
    code = int(np.searchsorted(F16_TABLE, np.float32(x), side="right")) - 1
    low = Fraction(float(F16_TABLE[code]))
    step = Fraction(float(F16_TABLE[min(code + 1, 0x7BFF)])) - low
    share = (Fraction(float(np.float32(x))) - low) / step if step else Fraction(0)
    up = int(share * 2**32) + r32 >= 2**32
    assert int(_stochastic(np.array([x], np.float32), "F16", seed=9, start=index)[0]) == code + up


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("value", [0.1234567, -3.0e-3, 1.7e-5, -4.1e-6, 2.0e-8, 40.3])
def test_stochastic_rounding_is_unbiased(dtype: str, value: float) -> None:
    n = 100_000
    x = np.full(n, value, np.float32)
    low, high = np.unique(to_f32(_stochastic(x, dtype, name=f"{value}"), dtype).astype(np.float64))[[0, -1]]
    mean = to_f32(_stochastic(x, dtype, name=f"{value}"), dtype).astype(np.float64).mean()
    assert low <= float(x[0]) <= high
    share = (float(x[0]) - low) / (high - low) if high > low else 0.0
    sigma = (high - low) * (share * (1 - share) / n) ** 0.5
    assert abs(mean - float(x[0])) <= 5 * sigma + 2**-32 * (high - low) or low == high == 0


@pytest.mark.parametrize("dtype", NARROW)
def test_nothing_finite_becomes_infinite_by_chance(dtype: str) -> None:
    largest = to_f32(np.array([LARGEST[dtype]], storage_dtype(dtype)), dtype)
    below = np.nextafter(largest, np.float32(0))
    x = np.repeat(np.concatenate([largest, below, -largest, -below]), 50_000)
    assert np.isfinite(to_f32(_stochastic(x, dtype), dtype)).all()
    # Beyond the largest, nearest decides: one fp32 number above it comes back to it, always.
    above = np.repeat(np.nextafter(largest, np.float32(np.inf)), 50_000)
    assert (_stochastic(above, dtype) == LARGEST[dtype]).all()
    far = np.array([np.float32(3.4028235e38), np.inf], np.float32)
    end = to_f32(_stochastic(far, dtype), dtype)
    assert not np.isfinite(end[1])
    assert end[0] == (448 if dtype == "F8_E4M3" else np.inf)


WHOLE = np.concatenate(
    [
        np.random.default_rng(2).standard_normal(100_000, np.float32) * np.float32(1e-4),
        np.random.default_rng(3).integers(0, 1 << 32, 100_000, dtype=np.uint32).view(np.float32),
    ]
)
ROUNDED = {dtype: _stochastic(WHOLE, dtype) for dtype in NARROW}


@given(start=st.integers(0, 199_999), count=st.integers(0, 80_000), dtype=st.sampled_from(NARROW))
def test_a_part_rounds_as_the_part_of_the_whole(start: int, count: int, dtype: str) -> None:
    part = WHOLE[start : start + count]
    assert np.array_equal(_stochastic(part, dtype, start=start), ROUNDED[dtype][start : start + count])


def test_seed_name_and_index_each_matter() -> None:
    x = np.full(1000, 0.1234567, np.float32)
    keys = [(1, "w", 0), (2, "w", 0), (1, "v", 0), (1, "w", 1)]
    results = [_stochastic(x, "BF16", seed=s, name=n, start=i).tobytes() for s, n, i in keys]
    assert len(set(results)) == 4


def test_shape_is_kept_and_input_left_alone() -> None:
    x = np.random.default_rng(0).standard_normal((3, 5), np.float32)
    before = x.copy()
    rounded = _stochastic(x, "BF16")
    assert rounded.shape == (3, 5)
    assert np.array_equal(rounded.reshape(-1), _stochastic(x.reshape(-1), "BF16"))
    assert np.array_equal(_stochastic(x.T, "F16"), _stochastic(np.ascontiguousarray(x.T), "F16"))
    assert np.array_equal(x, before)
    assert _stochastic(np.empty(0, np.float32), "F16").shape == (0,)


def test_unknown_words_are_refused() -> None:
    x = np.zeros(1, np.float32)
    with pytest.raises(UsageError, match="F64"):
        _nearest(x, "F64")
    with pytest.raises(UsageError, match="'up'"):
        round_to(x, "BF16", "up", seed=0, name="w", start=0)
