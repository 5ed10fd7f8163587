"""Any bytes at all as a safetensors header. The atheris twin is tests/fuzz/fuzz_header.py."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzzing import examples, header, header_seeds, mutated

from pv.registry.dtypes import DTYPES

names = st.sampled_from(["a", "b", "", "a\0", "../x", "__metadata__", "\ud800", "é"]) | st.text(max_size=5)
sizes = st.integers(-1, 9) | st.sampled_from([1 << 31, 1 << 48, 1 << 63, 1.0, True, None, "2"])
specs = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from([*DTYPES, "F31", None]),
        "shape": st.lists(sizes, max_size=3),
        "data_offsets": st.lists(sizes, min_size=1, max_size=3),
    }
) | st.dictionaries(names, st.integers(), max_size=2)


@st.composite
def tables(draw: st.DrawFn) -> bytes:
    """Tensors that tile the data, then perhaps one thing changed: what random bytes never hit upon."""
    document: dict[str, Any] = {}
    position = 0
    for name in draw(st.lists(names.filter(lambda n: n != "__metadata__"), max_size=4, unique=True)):
        dtype, shape = (
            draw(st.sampled_from(sorted(DTYPES))),
            draw(st.lists(st.integers(0, 4), max_size=3)),
        )
        bits = DTYPES[dtype].bits
        for n in shape:
            bits *= n
        document[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + bits // 8]}
        position += bits // 8
    if draw(st.booleans()):
        document[draw(names)] = draw(specs)
    return position.to_bytes(2, "little") + json.dumps(document).encode()


@given(st.binary(max_size=300) | mutated(header_seeds()) | tables())
@settings(max_examples=examples(), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_header(data: bytes) -> None:
    header(data)
