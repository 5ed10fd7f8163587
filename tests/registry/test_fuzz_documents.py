"""Any bytes at all as a persona, a manifest, rows, or a pack's description. Twin: tests/fuzz/fuzz_manifest.py."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.fuzzing import DOCUMENTS, document, document_seeds, examples, mutated

leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["ab" * 32, "F32", "exact", "add", "\ud800", "../x"])
)
values = st.recursive(
    leaves, lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3)
)


@st.composite
def grafted(draw: st.DrawFn) -> bytes:
    """A good document with one value, anywhere in it, replaced by any other."""
    seed = draw(st.sampled_from([seed for seed in document_seeds() if seed[0] != DOCUMENTS.index("rows")]))
    root = [json.loads(seed[1:])]
    place: Any
    key: str | int
    place, key = root, 0
    while True:
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            break
        place, key = (
            inner,
            draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner)))),
        )
    place[key] = draw(values)
    return seed[:1] + json.dumps(root[0]).encode()


@given(st.binary(max_size=200) | mutated(document_seeds()) | grafted())
@settings(max_examples=examples(), deadline=None, suppress_health_check=list(HealthCheck))
def test_any_document(data: bytes) -> None:
    document(data)
