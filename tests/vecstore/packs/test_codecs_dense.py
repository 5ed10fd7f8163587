"""The dense codec: forecasts of low rank, contexts that share models, and what a hostile one may do."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.vectors import array

from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs import chunks, contexts, dense, forecast
from pv.vecstore.packs.codecs.forecast import BINS, Forecast
from pv.vecstore.packs.codecs.ordered import exponent as exponent_of
from pv.vecstore.packs.codecs.ordered import from_ordered, to_ordered
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.philox import bits32

ROWS, COLUMNS = 256, 320


def drifted(start: int, count: int) -> tuple[Raw, Raw]:
    """Weights in bf16, and what they are after a change of rank 2, blurred by what a step of each hides."""
    layout = DTYPES["BF16"]
    normal = np.random.Generator(np.random.Philox(3)).standard_normal(start + count, np.float32)[start:]
    base = (normal * np.float32(0.02)).view("<u4").astype("<u4") >> 16
    place = start + np.arange(count)
    row, column = place // COLUMNS, place % COLUMNS
    change = np.sin(row) * np.cos(3 * column) + 0.5 * np.cos(2 * row) * np.sin(column)
    unit = np.exp2(exponent_of(base.astype("<u2"), layout).astype(np.float64) - 134)
    step = np.clip(np.rint(change * 2e-4 / unit), -99, 99).astype(np.int64)
    ordered = to_ordered(base.astype("<u2"), layout).astype(np.int64) + step
    return base.astype("<u2"), from_ordered(ordered.astype("<u2"), layout)


@pytest.mark.parametrize("start", [0, COLUMNS, 77])
def test_a_change_of_low_rank_is_foreseen(start: int) -> None:
    base, tuned = drifted(start, ROWS * COLUMNS)
    blind = chunks.encode(tuned, "BF16", base, smallest=True)
    seeing = chunks.encode(tuned, "BF16", base, smallest=True, columns=COLUMNS, start=start)
    assert (blind[:2], seeing[0]) == (b"\3\0", 3)
    assert 0 < seeing[1] <= 16  # its rank
    assert len(seeing) < 0.8 * len(blind)
    assert chunks.decode(memoryview(seeing), len(base), "BF16", base).tobytes() == tuned.tobytes()


def test_factors_that_are_more_than_the_elements_are_refused() -> None:
    guess = Forecast(np.ones((2, 3), np.int8), np.ones((4, 3), np.int8), 0, 0)
    with pytest.raises(CorruptPack, match="too large"):
        forecast.unpack(memoryview(guess.pack()), 8)


def test_what_has_no_rank_is_not_forecast() -> None:
    base, _ = drifted(0, ROWS * COLUMNS)
    tuned = base + (bits32(1, "noise", 0, len(base)) % np.uint32(3)).astype(base.dtype)
    packed = chunks.encode(tuned, "BF16", base, smallest=True, columns=COLUMNS)
    assert packed[:2] == b"\3\0"
    assert chunks.decode(memoryview(packed), len(base), "BF16", base).tobytes() == tuned.tobytes()


@st.composite
def forecasts(draw: st.DrawFn) -> tuple[Forecast, int]:
    """Any factors at all, for a chunk that may end within a row."""
    rank, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    phase, rows = draw(st.integers(0, columns - 1)), draw(st.integers(2, 40))
    least = max((rows - 1) * columns + 1 - phase, (rows + columns) * rank)
    count = draw(st.integers(min(least, rows * columns - phase), rows * columns - phase))
    assume(count >= least)
    factor = st.one_of(st.sampled_from([-128, 127, 0]), st.integers(-128, 127))
    size = (rows + columns) * rank
    drawn = draw(st.lists(factor, min_size=size, max_size=size))
    factors = np.array(drawn, np.int8).reshape(rows + columns, rank)
    made = Forecast(factors[:rows], factors[rows:], phase, draw(st.integers(-(1 << 15), (1 << 15) - 1)))
    return made, count


@given(forecasts())
def test_a_forecast_comes_back(case: tuple[Forecast, int]) -> None:
    made, count = case
    packed = made.pack()
    found, rest = forecast.unpack(memoryview(packed + b"more"), count)
    assert found is not None and bytes(rest) == b"more"
    assert (found.phase, found.shift) == (made.phase, made.shift)
    assert np.array_equal(found.rows, made.rows) and np.array_equal(found.columns, made.columns)
    for cut in range(len(packed)):
        with pytest.raises(CorruptPack):
            forecast.unpack(memoryview(packed)[:cut], count)


@given(forecasts(), st.integers(0, 2047))
def test_bins_are_what_integers_say(case: tuple[Forecast, int], field: int) -> None:
    made, _ = case
    count = len(made.rows) * len(made.columns) - made.phase
    down, bins = made.of(np.full(count, field, np.uint16))
    whole = (made.rows.astype(np.int64) @ made.columns.T.astype(np.int64)).reshape(-1)[made.phase :]
    for value, falls, place in zip(whole.tolist(), down.tolist(), bins.tolist(), strict=True):
        assert falls == (value < 0)
        wanted = (value * value).bit_length() - 1 - 2 * max(field, 1) + made.shift if value else 0
        assert place == min(max(wanted, 0), BINS - 1)


@given(forecasts(), st.sampled_from(["BF16", "F32", "F8_E4M3"]), st.integers(0, 1000), st.data())
@settings(max_examples=200)
def test_dense_chunks_come_back_or_are_refused(
    case: tuple[Forecast, int], dtype: str, seed: int, data: st.DataObject
) -> None:
    """Also with a forecast that is wrong; and damaged, they are of the right size or an error."""
    made, _ = case
    layout = DTYPES[dtype]
    storage = storage_dtype(dtype)
    count = len(made.rows) * len(made.columns) - made.phase
    exponent = exponent_of(array("base", dtype, count, seed=seed).raw, layout)
    steps = (bits32(seed, "step", 0, count) % np.uint32(30)).astype(storage) - storage.type(15)
    packed = dense.code(dense.Guess(made, steps, exponent))
    assert dense.unpack(memoryview(packed), exponent, layout.itemsize).tobytes() == steps.tobytes()
    wrong = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 3))):
        wrong[data.draw(st.integers(0, len(wrong) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = dense.unpack(memoryview(wrong), exponent, layout.itemsize)
    except CorruptPack:
        return
    assert (found.dtype, found.shape) == (steps.dtype, steps.shape)


def test_contexts_that_behave_alike_share_a_model() -> None:
    few, many = np.array([900, 90, 10, 0]), np.array([100, 300, 300, 300])
    counts = np.stack([few, many, 2 * few, 3 * many, few, np.zeros(4, np.int64)])
    classes = contexts.merge(counts)
    assert classes[0] == classes[2] == classes[4] != classes[1] == classes[3]
    assert set(classes) == {0, 1}


@given(st.lists(st.lists(st.integers(0, 5000), min_size=3, max_size=3), min_size=1, max_size=30))
def test_sharing_never_costs_more(rows: list[list[int]]) -> None:
    counts = np.array(rows, np.int64)
    counts = counts[counts.sum(axis=1) >= contexts.FEW]
    if not len(counts):
        return
    classes = contexts.merge(counts)
    assert set(classes) == set(range(int(classes.max()) + 1))
    together = np.zeros((int(classes.max()) + 1, 3), np.int64)
    np.add.at(together, classes, counts)
    assert contexts.bits(together).sum() <= contexts.bits(counts).sum() + 1e-6


def test_there_are_never_more_models_than_a_byte_can_name() -> None:
    counts = np.zeros((600, 256), np.int64)
    for i in range(600):
        counts[i, i % 256] = counts[i, (7 * i + i // 256) % 256] = 1 << 40
    classes = contexts.merge(counts)
    assert int(classes.max()) + 1 == contexts.MOST


def test_many_contexts_do_not_take_for_ever() -> None:
    """Their number is bounded before any two are compared."""
    counts = np.full((contexts.MOST_GROUPS * 4, 2), 1 << 20)
    assert set(contexts.merge(counts)) == {0}
