"""What the merge methods give, byte for byte: in one thread and two, with and without vector instructions.

A sum that changes here means checkpoints built before can no longer be rebuilt: that is a new engine version, never an
edit of this table. `add` and `ties` are held by tests/vecstore/tensors/test_golden.py.
"""

from __future__ import annotations

from typing import Any

import pytest
from support import SUPPORT
from support.golden import needs_vector_instructions, report
from support.methods_golden import CASES

from pv.registry.combine import METHODS

GOLDEN = {
    "linear": "47515332f0fbf5f357ba42cab699a9283e4b33f8c875aa474431738687fed934",
    "slerp": "877cd2afa5b822d9aa8faa10eca399fb457cb3ebd56b751097409b3011f805a4",
    "nuslerp": "baaf17fa60471e57e2d8595640b4186ff93c34abe277d7d2d4bf2a7f93e280e9",
    "nuslerp-models": "dd8df8483e7312b55f1a38af8f1fe45a90ebf0565d02242f343ae1f2e348c18d",
    "multislerp": "f53c8368957eef9116e05ca87ba9b7155d34996bf84a3e2b9c4151918dc53c4e",
    "multislerp-mergekit": "a6c86d16e82ba486a6fe41e127bacad8a17a6deaa25ece43bbd99aadf8b1b84d",
    "karcher": "5d90c8f4c522f45c5dfe75d98264bce699083ec1238c980bc967c1d6e7251ecb",
    "dare": "1015c773df40a4397ce9de436607d6b517638bc1cbebb156528f7c814069e79c",
    "dare-elected": "a764710b5564dac479b29eb77e8082e61a4bd6cb925cfe223f4f42298ffa23e1",
    "della": "705e30af9da21466541c692dbe539038231eba121ac770a0cec8c4def3ed4bba",
    "breadcrumbs": "a3ec752d75228589c428b76ff0bf598ac8b0f4cf3388abbeb510bd5379bc8534",
    "breadcrumbs-mean": "54f416dcaeba7e34a4f884b0d46584f5e4050a905bb5dbf4e3f7ce7172cf00f3",
    "sce": "0fe74d9c9ffe8b8103a02a683e8759f4cf70506e51b90b627fd16b92a2fd7f6f",
    "sce-selected": "e543ddfbed4a706731a2f165685c9d9e8cdecc85e3a5dd302bd106c42676d23e",
    "model_stock": "865444983a035ee9539755db8a296166d4b4b3f015f42c32a3cec1aff5b6427b",
    "consensus": "70f9ab944815d745dd6be9a2fd73f49afa064cafb226cf8ff0fce61f41b95631",
    "nearswap": "a25a22034ff0c7d193d7aac0fc34b946c4c28aebb2a90fba6cf1cca85bd79a04",
    "arcee_fusion": "4fdbe0c4aa8bd950c3d4051bda0b2d7a64ecc0051a93fc1dd46ab1cd6cc9f3bc",
}
SCRIPT = SUPPORT / "methods_golden.py"


def _report(threads: int, *, plain: bool = False) -> Any:
    return report(SCRIPT, threads, threads=threads, hash_seed=threads, without_vectors=plain)


@pytest.mark.parametrize("threads", [1, 2])
def test_golden_sums(threads: int) -> None:
    made = _report(threads)
    assert made["sums"] == GOLDEN
    assert not made["torch"]  # a build needs no torch


@needs_vector_instructions
def test_golden_sums_without_vector_instructions() -> None:
    made = _report(2, plain=True)
    assert made["vector"] == []  # or this test would show nothing
    assert made["sums"] == GOLDEN


def test_every_method_is_held_somewhere() -> None:
    assert {rule.method for rule, _ in CASES.values()} | {"add", "ties"} == METHODS.keys()
    assert len(set(GOLDEN.values())) == len(GOLDEN)
