"""Engine 1's outputs, byte for byte: in one thread and two, in other pieces, without vector instructions.

A sum that changes here means checkpoints built before can no longer be rebuilt: that is a new engine
version, never an edit of this table.
"""

from __future__ import annotations

from typing import Any

import pytest
from support import SUPPORT
from support.golden import needs_vector_instructions, report

GOLDEN = {
    "add-bf16": "b667fb8c2542f3162ea0f1360c103f46127e83de681d10906497e8c50b5f674b",
    "add-bf16-nearest": "834551ae2c176b3d9f253e68ddecc09ce112a020bc3e3322a16bebf3a5dd43ce",
    "add-fp16": "b4b6e395a9bea182b0847efec056c431cb5a0bc276bf84e5f77ab3a880dd64db",
    "add-fp16-own": "94576def85a8e85b0d8f2e246567b41cdd3a8d69a09e83cb29a4995e2f9c4f76",
    "add-fp32": "eca466024d902c824fa400f936bf4e5f63373b7877d7c4e3636755549499bd81",
    "add-e4m3": "f4a8d0a27043026ba3a4e65666d97c275664d98e28fa71aae8a2225de4990023",
    "ties-bf16": "ec0c3866d8cac90f45f82c5747b28d98451dedd89dfef989bd13be5883286ff7",
    "ties-fp16-sum": "ad1848e73b1552de85250c74975d8a16a061f34468963728e290a6e412d549b0",
    "ties-fp32-mergekit": "2fd52910ce4ebdffd3c5964fa8848fe59162f8a19d82f581eeff8f6e75d93690",
}
SCRIPT = SUPPORT / "engine_golden.py"


def _report(threads: int, chunk: int, *, plain: bool = False) -> Any:
    seed = chunk % 1000
    return report(SCRIPT, threads, chunk, threads=threads, hash_seed=seed, without_vectors=plain)


@pytest.mark.parametrize(("threads", "chunk"), [(1, 200_003), (2, 4096), (2, 99_999)])
def test_golden_sums(threads: int, chunk: int) -> None:
    made = _report(threads, chunk)
    assert made["sums"] == GOLDEN
    assert not made["torch"]  # a build needs no torch


@needs_vector_instructions
@pytest.mark.parametrize("threads", [1, 2])
def test_golden_sums_without_vector_instructions(threads: int) -> None:
    made = _report(threads, 65_537, plain=True)
    assert made["vector"] == []  # or this test would show nothing
    assert made["sums"] == GOLDEN
