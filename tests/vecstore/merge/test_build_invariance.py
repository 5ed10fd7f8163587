"""Builds: the same bytes everywhere, and no bit moved by what ought not to matter.

A sum in GOLDEN that changes means that checkpoints built before can no longer be rebuilt: that is a new engine
version, never an edit of this table.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import SUPPORT
from support.golden import needs_vector_instructions, report
from support.vectors import (
    WHOLE,
    World,
    array,
    base_at,
    behaviour,
    kept,
    persona,
    random_f32,
    read_all,
    same_bits,
    save,
    small_base,
    store,
)

from pv.registry.combine import Combine
from pv.registry.persona import ENGINES, Behaviour, Term
from pv.vecstore.merge.build import build
from pv.vecstore.merge.shards import plan_shards
from pv.vecstore.tensors.array import Array
from pv.vecstore.vectors.vector import open_vector

GOLDEN_BASE = "db1855338d6791164edd7353a50d5a79ee8b3ab90e5b29d4eea894be2c200a14"
GOLDEN_VECTORS = [
    "2f5e56b2a5c67d8e46ef4e0f9fa06bfe202710409d554cc80741aa38e5888527",
    "93710ad5622a09c824fe42b0e69b25cc3be72b388e05dd271f0b3a6bca4dbacf",
    "16d94ae48c7a98ba0856fe316e7c4fbedb38af4e58127a624f784723e36de1f2",
    "72c35d9cc41f36bd55fa29e9730d2498afcf540c6bca6a0391428790379f0932",
    "09169b6e5a6cfeb3f942692dce56374f0c1d6214f6f3c070c88d47251ac0700b",
]
GOLDEN = {
    "empty": GOLDEN_BASE,  # nothing added, nothing converted: the base's own table
    "empty-bf16": "fd17ca7782763e6ad7136bc74c3d7f4d19f3329a034f4f91f8dafbd32a794f6a",
    "add": "66bdaed9686ef6806e4f9c4a9037ebb2f53e5d04a87961cd99caa515708c25d5",
    "add-bf16-nearest": "d6cfeb7808504d2001e920090663d7a4a6e3a5c62d58650e79b1131e7396def3",
    "add-fp16": "c5428bec9cd2081ce2b185e073d3373084f749489ff95ab31d6c76ef625bced8",
    "add-fp32": "8914dce2894e804393f1a351e299de6428dd4dd9ea1765dc926da510e5a99af5",
    "ties": "eba4e926ab6dde9f8d3582b2d9e983b9684e3c760c2f7df08ac65c49e41404e7",
    "ties-fp16-sum": "dfe81df4ee31242daf12bbea65bbf33c3fcaeee97378f19d9ced6bfddabef55a",
    "ties-fp32-sum": "dd4203891c4932569ab76d257b331e3030d6fd679b187d6514467a0084984260",
    "far-half": "1daa1cbea04d1daf631731b76de1a2a8d17768c6dc0c9590850e7015ac445e48",
}
GOLDEN_ALONE: dict[int, dict[str, str]] = {  # by engine: a captured checkpoint alone at weight 1
    1: {
        "far": "4f80caa6abf3384464de3f337e821c06803a811b1e2c79f3b07538ccc3bcfbae",
        "far-bf16": "8d45f49c1bbace30f65b48525baf08718ddb711eab98622e64b9517c90219a52",
        "far-fp16-nearest": "713a20ca2f236cbb32b4d2ed55b7895598234e2c6fa791ccdcd03392a29f64eb",
    },
    2: {
        "far": "cf60baeab2ab8e0ebab72b0c6d8c5cfde647d3252b1e86b2655e7371b6af932d",
        "far-bf16": "30477becd03d25b47c7c017c2f10f971c72adfa8d38af3109aabbf060e252ba8",
        "far-fp16-nearest": "1f6be4f31ec7328c7bb5bb444f16b07dec8a709599096bc764fd568c6c7bf93f",
    },
}
SCRIPT = SUPPORT / "build_golden.py"

TENSORS = small_base()


# The same everywhere


def _report(folder: Path, threads: int, shard_bytes: int, engine: int, *, plain: bool = False) -> Any:
    arguments = (folder, threads, shard_bytes, engine)
    return report(SCRIPT, *arguments, threads=threads, hash_seed=threads, without_vectors=plain)


def _is_golden(found: Any, engine: int) -> None:
    assert found["base"] == GOLDEN_BASE
    assert found["vectors"] == GOLDEN_VECTORS
    assert {case: made["weights"] for case, made in found["builds"].items()} == {
        **GOLDEN,
        **GOLDEN_ALONE[engine],
    }


@pytest.mark.parametrize("engine", ENGINES)
def test_golden_builds(tmp_path: Path, engine: int) -> None:
    whole = _report(tmp_path / "whole", 1, WHOLE, engine)
    _is_golden(whole, engine)
    assert whole["foreign"] == []  # a build needs no torch
    assert all(list(made["files"]) == ["model.safetensors"] for made in whole["builds"].values())

    again = _report(tmp_path / "again", 2, WHOLE, engine)
    assert again["builds"] == whole["builds"]  # the very files

    many = _report(tmp_path / "many", 2, 3000, engine)
    _is_golden(many, engine)
    assert all(len(made["files"]) >= 3 for made in many["builds"].values())


@needs_vector_instructions
@pytest.mark.parametrize("engine", ENGINES)
def test_golden_builds_without_vector_instructions(tmp_path: Path, engine: int) -> None:
    made = _report(tmp_path / "plain", 2, 100_000, engine, plain=True)
    assert made["vector"] == []  # or this test would show nothing
    _is_golden(made, engine)


@pytest.mark.parametrize("shard_bytes", [1, 100, 700, 5000])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_and_shards_change_no_weight(world: World, shard_bytes: int, threads: int) -> None:
    mixed = world.of({"x": behaviour(0.7, world.a), "y": behaviour(0.4, world.exact)})
    whole = world.build(mixed, "whole", threads=1)
    parts = world.build(mixed, "parts", threads=threads, shard_bytes=shard_bytes)
    assert parts.weights == whole.weights
    assert len(parts.files) == len(plan_shards(mixed, world.base.manifest, shard_bytes=shard_bytes))
    assert all(same_bits(t, world.read("whole")[n]) for n, t in world.read("parts").items())


def test_the_plan(world: World) -> None:
    mixed = world.of({})
    (one,) = plan_shards(mixed, world.base.manifest)
    assert one.file == "model.safetensors"
    assert list(one.tensors) == sorted(TENSORS)
    many = plan_shards(mixed, world.base.manifest, shard_bytes=1000)
    assert [s.file for s in many] == [
        f"model-{i + 1:05d}-of-{len(many):05d}.safetensors" for i in range(len(many))
    ]
    assert [n for s in many for n in s.tensors] == sorted(TENSORS)
    for shard in many:
        assert shard.nbytes <= 1000 or len([1 for spec in shard.tensors.values() if spec.nbytes]) == 1


# Bits that must not move


def test_untouched_tensors_and_elements_keep_their_bits(tmp_path: Path) -> None:
    """Every bf16 pattern, with a delta on every other element; and tensors that no vector names."""
    every = np.arange(65536, dtype=np.uint16)
    own = {
        "w": Array("BF16", (65536,), every),
        "v": Array("BF16", (65536,), every),
        "i": array("i", "I32", 9),
    }
    delta = random_f32("delta", 65536, least=100, spread=10)
    delta[::2] = np.where(np.arange(32768) % 2, np.float32(0), np.float32(-0.0))
    with base_at(save(tmp_path / "base", own)) as base:
        packs = store(tmp_path)
        vector_id = kept(base, packs, {"w": delta})
        with open_vector(vector_id, base, packs) as vector:
            for rule in (Combine.of("add"), Combine.of("ties", density=1.0)):
                out = tmp_path / rule.method
                made = persona(base, {"x": behaviour(1.0, vector_id)}, rule)
                built = build(made, base, {vector_id: vector}, out, side_files={})
                found = read_all(out)
                assert built.touched == 1
                assert built.changed == 32768
                assert np.array_equal(found["w"].raw[::2], every[::2])
                assert not np.array_equal(found["w"].raw[1::2], every[1::2])
                assert same_bits(found["v"], own["v"])
                assert same_bits(found["i"], own["i"])


def test_an_empty_persona_is_the_base(world: World) -> None:
    made = world.build(world.of({}))
    assert made.weights == world.base.manifest.id
    assert (made.touched, made.changed) == (0, 0)


@pytest.mark.parametrize("rule", [Combine.of("add"), Combine.of("ties")])
@pytest.mark.parametrize("dtype", ["base", "fp16"])
def test_weight_zero_is_absent_is_dropped(world: World, rule: Combine, dtype: str) -> None:
    x = {"x": behaviour(0.8, world.a)}
    without = world.weights(x, rule, dtype=dtype)
    assert world.weights({**x, "y": behaviour(0.0, world.b)}, rule, dtype=dtype) == without
    assert world.weights({**x, "y": Behaviour(1.0, (Term(0.0, world.b),))}, rule, dtype=dtype) == without
    both = world.of({**x, "y": behaviour(1.0, world.b)}, rule, dtype=dtype)
    assert world.build(both, "both").weights != without
    assert world.build(both.without("y"), "dropped").weights == without


def test_add_then_revert_is_before(world: World) -> None:
    before = world.of({"x": behaviour(0.8, world.a)})
    first = world.build(before, "first")
    added = before.with_behaviour("y", behaviour(1.0, world.exact))
    assert world.build(added, "added").weights != first.weights
    assert world.build(added.without("y"), "reverted").files == first.files


@pytest.mark.parametrize("weight", [1.0, 0.3, -2.0])
def test_a_vector_and_its_negation_leave_the_base(world: World, weight: float) -> None:
    both = {"x": behaviour(weight, world.a), "y": behaviour(-weight, world.a)}
    assert world.weights(both) == world.base.manifest.id
    rest = {"z": behaviour(0.6, world.b)}
    assert world.weights({**both, **rest}) == world.weights(rest)


def test_names_do_not_matter(world: World) -> None:
    x, y = behaviour(0.8, world.a), behaviour(-0.3, world.b)
    assert world.weights({"x": x, "y": y}) == world.weights({"p": y, "q": x})


def test_the_order_of_numbers_matters(world: World) -> None:
    """So that the tests above cannot pass on a build that ignores its input."""
    seen = [
        world.weights({}),
        *(world.weights({"x": behaviour(w, v)}) for w in (1.0, 0.5, -1.0) for v in (world.a, world.b)),
        world.weights({"x": behaviour(1.0, world.a)}, dtype="fp16"),
        world.weights({"x": behaviour(1.0, world.a)}, rounding="nearest"),
        world.weights({"x": behaviour(1.0, world.a)}, seed=1),
        world.weights({"x": behaviour(1.0, world.a)}, Combine.of("ties")),
        world.weights({"x": behaviour(1.0, world.a, modules={"*mlp*": 0.5})}),
    ]
    assert len(set(seen)) == len(seen)
