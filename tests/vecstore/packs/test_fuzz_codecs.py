"""Any bytes at all as a chunk of a pack. The atheris twin is tests/fuzz/fuzz_codecs.py."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzzing import chunk, chunk_seeds, examples, mutated


@given(st.binary(max_size=200) | mutated([seed for seed in chunk_seeds() if len(seed) < 400]))
@settings(max_examples=examples(), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_chunk(data: bytes) -> None:
    chunk(data)
