"""Chunks, frames and layouts: every bit pattern comes back, and hostile bytes end in CorruptPack.

Nothing here knows what a chunk's kinds are called: only that what went in comes out, what never went in is
refused, and no memory is taken on a stranger's word.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from support.vectors import array, nudged, same

from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack
from pv.vecstore.packs.codecs import chunks, frames, graded, rans
from pv.vecstore.tensors.array import Raw, storage_dtype
from pv.vecstore.tensors.formats import FLOATS
from pv.vecstore.tensors.philox import bits32

NAMES = sorted(row.name for row in DTYPES.values() if row.bits % 8 == 0)


@st.composite
def packed(draw: st.DrawFn) -> tuple[str, Raw, Raw | None]:
    """A dtype, elements of it, and a reference: none, unrelated, the same, or a few steps away."""
    dtype = draw(st.sampled_from(NAMES))
    storage = storage_dtype(dtype)
    count = draw(st.integers(0, 300))
    raw = np.frombuffer(
        draw(st.binary(min_size=count * storage.itemsize, max_size=count * storage.itemsize)), storage
    )
    kind = draw(st.sampled_from(["none", "unrelated", "same", "near"]))
    if kind == "none":
        return dtype, raw, None
    if kind == "same":
        return dtype, raw, raw
    if kind == "near":
        steps = draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
        return dtype, raw, raw - np.array(steps, storage)
    other = draw(st.binary(min_size=count * storage.itemsize, max_size=count * storage.itemsize))
    return dtype, raw, np.frombuffer(other, storage)


def test_a_row_of_the_table_adds_up() -> None:
    for name, row in DTYPES.items():
        assert row.name == name
        assert 8 * row.itemsize == max(8, row.bits)
        if row.is_float:
            assert 1 + row.exponent + row.mantissa == row.bits
        if row.in_fp32:
            assert row.exponent <= 8 and row.mantissa <= 23
        assert (row.output is None) == (row.torch is None)


@given(packed(), st.booleans())
@settings(max_examples=400)
def test_every_bit_comes_back(case: tuple[str, Raw, Raw | None], smallest: bool) -> None:
    dtype, raw, reference = case
    data = chunks.encode(raw, dtype, reference, smallest=smallest)
    assert len(data) <= 1 + raw.nbytes
    assert same(chunks.decode(memoryview(data), len(raw), dtype, reference), raw)


@pytest.mark.parametrize("dtype", NAMES)
@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("against", [False, True])
def test_nothing_and_one_element(dtype: str, count: int, against: bool) -> None:
    storage = storage_dtype(dtype)
    raw = np.full(count, np.iinfo(storage).max, storage)
    reference = np.zeros(count, storage) if against else None
    data = chunks.encode(raw, dtype, reference)
    assert same(chunks.decode(memoryview(data), count, dtype, reference), raw)


@pytest.mark.parametrize("count", [chunks.CHUNK - 1, chunks.CHUNK])
def test_a_full_chunk(count: int) -> None:
    base = array("base", "BF16", count)
    tuned = nudged({"w": base}, 5, share=8)["w"].raw
    alone = chunks.encode(tuned, "BF16")
    delta = chunks.encode(tuned, "BF16", base.raw)
    dense = chunks.encode(tuned, "BF16", base.raw, smallest=True)
    assert same(chunks.decode(memoryview(alone), count, "BF16"), tuned)
    assert same(chunks.decode(memoryview(delta), count, "BF16", base.raw), tuned)
    assert same(chunks.decode(memoryview(dense), count, "BF16", base.raw), tuned)
    # A fine-tune is close to its base: that is the point of a reference.
    assert len(dense) < len(delta) < 0.2 * len(alone)


@pytest.mark.parametrize("dtype", NAMES)
def test_a_frozen_chunk_costs_next_to_nothing(dtype: str) -> None:
    storage = storage_dtype(dtype)
    raw = array("frozen", dtype, 9000).raw if dtype in FLOATS else bits32(3, "i", 0, 9000).astype(storage)
    for smallest in (False, True):
        assert len(chunks.encode(raw, dtype, raw, smallest=smallest)) < 64 + raw.nbytes // 50


def test_the_pack_is_a_function_of_its_input() -> None:
    base, tuned = array("base", "BF16", 9000), array("base", "BF16", 9000, seed=2)
    first = chunks.encode(tuned.raw, "BF16", base.raw)
    assert first == chunks.encode(tuned.raw.copy(), "BF16", base.raw.copy())


# Hostile chunks


@given(packed(), st.data())
@settings(max_examples=200)
def test_a_chunk_cut_short_or_grown_is_refused(
    case: tuple[str, Raw, Raw | None], data: st.DataObject
) -> None:
    dtype, raw, reference = case
    packed = chunks.encode(raw, dtype, reference, smallest=data.draw(st.booleans()))
    cut = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:cut], packed + b"\0"):
        with pytest.raises(CorruptPack):
            chunks.decode(memoryview(wrong), len(raw), dtype, reference)


@given(packed(), st.integers(1, 400))
@settings(max_examples=200)
def test_a_chunk_of_another_length_is_refused(case: tuple[str, Raw, Raw | None], count: int) -> None:
    dtype, raw, _ = case
    if count == len(raw) or np.unique(raw).size < 2:  # a constant may be stretched: its id tells
        return
    with pytest.raises(CorruptPack):
        chunks.decode(memoryview(chunks.encode(raw, dtype)), count, dtype)


@given(packed(), st.data())
@settings(max_examples=400)
def test_changed_bytes_decode_to_the_right_size_or_are_refused(
    case: tuple[str, Raw, Raw | None], data: st.DataObject
) -> None:
    dtype, raw, reference = case
    smallest = len(raw) > 0 and data.draw(st.booleans())
    packed = bytearray(chunks.encode(raw, dtype, reference, smallest=smallest))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    _decodes_or_refuses(bytes(packed), len(raw), dtype, reference)


@given(st.binary(max_size=80), st.sampled_from(NAMES), st.integers(0, 50), st.booleans())
@settings(max_examples=400)
def test_any_bytes_decode_to_the_right_size_or_are_refused(
    junk: bytes, dtype: str, count: int, against: bool
) -> None:
    reference = np.zeros(count, storage_dtype(dtype)) if against else None
    _decodes_or_refuses(junk, count, dtype, reference)


def _decodes_or_refuses(data: bytes, count: int, dtype: str, reference: Raw | None) -> None:
    try:
        got = chunks.decode(memoryview(data), count, dtype, reference)
    except CorruptPack:
        return
    assert got.dtype == storage_dtype(dtype)
    assert got.shape == (count,)


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(CorruptPack, match="unknown kind"):
        chunks.decode(memoryview(b"\xff" + bytes(20)), 10, "BF16")
    with pytest.raises(CorruptPack, match="empty"):
        chunks.decode(memoryview(b""), 10, "BF16")


def test_a_delta_needs_its_base() -> None:
    base = array("base", "BF16", 4000)
    data = chunks.encode(nudged({"w": base}, 5)["w"].raw, "BF16", base.raw)
    with pytest.raises(CorruptPack, match="without its base"):
        chunks.decode(memoryview(data), 4000, "BF16")


# Hostile frames


def _block(payload: bytes, mode: int = frames.ZSTD, size: int | None = None) -> bytes:
    return bytes([mode]) + (len(payload) if size is None else size).to_bytes(4, "little") + payload


def _frame(data: bytes, *, sized: bool = True) -> bytes:
    return zstandard.ZstdCompressor(level=1, write_content_size=sized).compress(data)


def _declaring(size: int) -> bytes:
    """A frame whose header claims `size` bytes in one segment, and whose body is a short one."""
    return b"\x28\xb5\x2f\xfd" + bytes([0b1110_0000]) + size.to_bytes(8, "little") + _frame(b"x" * 100)[6:]


TEXT = bytes(range(50)) * 4  # 200 bytes that a frame makes smaller
HOSTILE = {
    "declares less": _block(_frame(TEXT[:199])),
    "declares more": _block(_frame(TEXT + b"!")),
    "declares a terabyte": _block(_declaring(1 << 40)),
    "declares all there is": _block(_declaring((1 << 64) - 3)),
    "declares the right size and is shorter": _block(_declaring(200)),
    "declares nothing": _block(_frame(TEXT, sized=False)),
    "two frames": _block(_frame(TEXT) + _frame(TEXT)),
    "a frame and a byte": _block(_frame(TEXT) + b"\0"),
    "a frame cut": _block(_frame(TEXT)[:-2]),
    "a frame cut in its header": _block(_frame(TEXT)[:3]),
    "no frame": _block(b""),
    "no zstd": _block(b"nothing like it"),
    "a skippable frame": _block(b"\x50\x2a\x4d\x18" + (200).to_bytes(4, "little") + TEXT),
    "a block longer than the data": _block(_frame(TEXT), size=10_000),
    "a block of four gigabytes": _block(_frame(TEXT), size=0xFFFFFFFF),
    "a block shorter than its frame": _block(_frame(TEXT), size=20),
    "a stored block of another size": _block(TEXT[:199], mode=frames.STORED),
    "a constant of two bytes": _block(b"ab", mode=frames.CONSTANT),
    "an unknown mode": _block(TEXT, mode=9),
    "no block": b"",
    "half a block header": b"\0\0\0",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_frame_is_refused_before_memory_is_taken(data: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(CorruptPack):
            frames.unpack_planes(memoryview(data), 200, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize(("window_log", "accepted"), [(20, True), (23, True), (24, False), (41, False)])
def test_a_window_beyond_what_the_data_needs_is_refused(window_log: int, accepted: bool) -> None:
    header = b"\x28\xb5\x2f\xfd" + bytes([0b1000_0000, (window_log - 10) << 3])
    raw_block = (len(TEXT) << 3 | 1).to_bytes(3, "little") + TEXT
    data = memoryview(_block(header + len(TEXT).to_bytes(4, "little") + raw_block))
    if accepted:
        assert frames.unpack_block(data, len(TEXT))[0].tobytes() == TEXT
    else:
        with pytest.raises(CorruptPack):
            frames.unpack_block(data, len(TEXT))


@pytest.mark.parametrize("itemsize", [1, 2, 4, 8])
def test_planes_of_every_width(itemsize: int) -> None:
    values = (bits32(5, "planes", 0, 999).astype(np.uint64) * np.uint64(0x100000001)).astype(f"<u{itemsize}")
    for level in (1, 3, 19):
        data = frames.pack_planes(values, level)
        found, rest = frames.unpack_planes(memoryview(data + b"rest"), 999, itemsize)
        assert same(found, values)
        assert bytes(rest) == b"rest"


# Fields of graded width


@st.composite
def stretches(draw: st.DrawFn) -> tuple[Raw, list[int]]:
    """Small integers with a few large ones, cut into stretches."""
    itemsize = draw(st.sampled_from([1, 2, 4, 8]))
    largest = (1 << (8 * itemsize)) - 1
    step = st.one_of(st.just(0), st.integers(0, 20), st.sampled_from([largest, largest - 1, largest >> 1]))
    parts = draw(st.lists(st.lists(step, max_size=60), max_size=5))
    return np.array([x for part in parts for x in part], f"<u{itemsize}"), [len(part) for part in parts]


@given(stretches())
def test_graded_fields_lose_nothing(case: tuple[Raw, list[int]]) -> None:
    values, lengths = case
    data = memoryview(graded.pack(values, lengths))
    assert same(graded.unpack(data, lengths, values.itemsize), values)
    with pytest.raises(CorruptPack):
        graded.unpack(memoryview(bytes(data) + b"\0"), lengths, values.itemsize)
    for cut in range(len(data)):
        with pytest.raises(CorruptPack):
            graded.unpack(data[:cut], lengths, values.itemsize)


@pytest.mark.parametrize("grade", graded.GRADES)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 31])
def test_every_grade_holds_every_value(grade: int, count: int) -> None:
    values = np.resize(np.array([0, 1, 2, 3, 14, 15, 16, 29, 30, 31, 254, 255, 65535], "<u2"), count)
    data = bytes([grade]) + graded._cascade(values, grade)  # which grade suits is a guess: none may lose
    assert same(graded.unpack(memoryview(data), [count], 2), values)


def test_a_grade_that_does_not_exist_is_refused() -> None:
    data = bytearray(graded.pack(np.zeros(9, "<u2"), [9]))
    data[0] = 3
    with pytest.raises(CorruptPack, match="width"):
        graded.unpack(memoryview(data), [9], 2)


@pytest.mark.parametrize("last", [0b10, 0b1000_0000])
def test_bits_behind_the_last_field_are_refused(last: int) -> None:
    fields = _block(bytes([0, last]), mode=frames.STORED)  # nine fields of one bit, and seven bits to spare
    nothing = _block(b"", mode=frames.STORED)
    with pytest.raises(CorruptPack, match="after its last"):
        graded.unpack(memoryview(b"\x01" + fields + nothing * 4), [9], 2)
    zeros = _block(bytes(2), mode=frames.STORED)
    assert not graded.unpack(memoryview(b"\x01" + zeros + nothing * 4), [9], 2).any()


# Entropy-coded steps


def models(lengths: list[int]) -> tuple[np.ndarray, int]:
    """A model for each stretch."""
    return np.repeat(np.arange(len(lengths)), lengths), len(lengths)


@given(stretches())
@settings(max_examples=150)
def test_dense_steps_lose_nothing(case: tuple[Raw, list[int]]) -> None:
    values, lengths = case
    if not lengths:
        return
    data = memoryview(rans.pack(values, *models(lengths)))
    assert same(rans.unpack(data, *models(lengths), values.itemsize), values)
    with pytest.raises(CorruptPack):
        rans.unpack(memoryview(bytes(data) + b"\0"), *models(lengths), values.itemsize)
    for cut in range(len(data)):
        with pytest.raises(CorruptPack):
            rans.unpack(data[:cut], *models(lengths), values.itemsize)


@given(stretches(), st.data())
@settings(max_examples=300)
def test_changed_dense_steps_have_the_right_size_or_are_refused(
    case: tuple[Raw, list[int]], data: st.DataObject
) -> None:
    values, lengths = case
    if not lengths:
        return
    packed = bytearray(rans.pack(values, *models(lengths)))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = rans.unpack(memoryview(packed), *models(lengths), values.itemsize)
    except CorruptPack:
        return
    assert (found.dtype, found.shape) == (values.dtype, values.shape)


def test_dense_steps_in_many_lanes() -> None:
    """More elements than lanes, an uneven end, rare large steps, and every digit of 64 bits."""
    draw = bits32(6, "lanes", 0, 50_001)
    values = (draw % np.uint32(3)).astype("<u8")
    values[::977] = draw[::977].astype("<u8") << (draw[::977] % np.uint32(33)).astype("<u8")
    lengths = [1, 20_000, 0, 30_000]
    data = memoryview(rans.pack(values, *models(lengths)))
    assert same(rans.unpack(data, *models(lengths), 8), values)
    assert len(data) < 50_001 * 1.585 / 8 * 1.1 + 2000  # near the entropy of three equal values
