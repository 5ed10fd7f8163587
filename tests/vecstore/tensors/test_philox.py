"""The generator against its published vectors, and the streams against their definition."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import PvError
from pv.vecstore.tensors.philox import Stream, bits16, bits32, philox4x32, stream_key

KNOWN_ANSWERS = [  # Random123's kat_vectors: counter, key, output
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def _words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_known_answer(counter: str, key: str, output: str) -> None:
    k0, k1 = _words(key)
    assert philox4x32(np.array([_words(counter)], np.uint32), (k0, k1)).tolist() == [_words(output)]


def test_rows_do_not_mix() -> None:
    counters = np.array([_words(counter) for counter, _, _ in KNOWN_ANSWERS], np.uint32)
    together = philox4x32(counters, (1, 2))
    alone = [philox4x32(counters[i : i + 1], (1, 2))[0].tolist() for i in range(3)]
    assert together.tolist() == alone


def test_a_stream_is_what_the_docstring_says() -> None:
    digest = hashlib.sha256("pv:engine:1:random\n7\nmodel.é.weight".encode()).digest()
    key = (int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little"))
    assert stream_key(7, "model.é.weight") == key
    index = (5 << 32) + 3  # a counter whose second word counts too
    block = philox4x32(np.array([[3, 5, 0, 0]], np.uint32), key)[0]
    assert bits32(7, "model.é.weight", 4 * index, 4).tolist() == block.tolist()
    halves = [half for word in block.tolist() for half in (word & 0xFFFF, word >> 16)]
    assert bits16(7, "model.é.weight", 8 * index, 8).tolist() == halves


WHOLE16 = bits16(3, "w", 0, 140_000)  # more than two batches of counters
WHOLE32 = bits32(3, "w", 0, 140_000)


@given(start=st.integers(0, 139_999), count=st.integers(0, 70_000))
def test_a_part_equals_the_part_of_the_whole(start: int, count: int) -> None:
    count = min(count, 140_000 - start)
    assert np.array_equal(bits16(3, "w", start, count), WHOLE16[start : start + count])
    assert np.array_equal(bits32(3, "w", start, count), WHOLE32[start : start + count])


@given(cuts=st.lists(st.integers(0, 1000), max_size=6))
def test_a_reused_stream_remembers_nothing(cuts: list[int]) -> None:
    stream = Stream(3, "w")
    for start in cuts:
        assert np.array_equal(stream.bits16(start, 100), WHOLE16[start : start + 100])
        assert np.array_equal(stream.bits32(start, 50), WHOLE32[start : start + 50])


def test_seed_and_name_each_make_another_stream() -> None:
    streams = [
        bits32(seed, name, 0, 64).tobytes() for seed in (0, 1, 11) for name in ("", "a", "1a", "a.weight")
    ]
    assert len(set(streams)) == len(streams)


def test_bits_are_fair() -> None:
    ones = np.unpackbits(WHOLE32.view(np.uint8)).reshape(-1, 32).sum(axis=0)
    # 32 fair coins thrown 140 000 times each: within five standard deviations (187 each)
    assert np.abs(ones.astype(np.int64) - 70_000).max() < 5 * 187.1


def test_a_negative_seed_is_refused() -> None:
    with pytest.raises(PvError, match="seed of 0 or more"):
        bits16(-1, "w", 0, 1)
