"""Builds: the same bytes everywhere, the right ones, and a whole folder or none.

A sum in GOLDEN that changes means that checkpoints built before can no longer be rebuilt: that is a new
engine version, never an edit of this table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from vector_kit import (
    Tensors,
    array,
    base_at,
    behaviour,
    captured,
    files_below,
    kept,
    nudged,
    persona,
    random_f32,
    read_all,
    save,
    small_base,
    store,
    values,
)

from pv.registry.errors import (
    BaseMismatch,
    CorruptPack,
    FormatError,
    IntegrityError,
    PvError,
    UsageError,
)
from pv.registry.packs import PackStore
from pv.registry.persona import Behaviour, Combine, Output, Persona, Term
from pv.vecstore.base import Base
from pv.vecstore.build import Built, build, build_id, plan
from pv.vecstore.checkpoint import INDEX, Checkpoint, side_files
from pv.vecstore.encodings.array import F32, Array
from pv.vecstore.engine.rounding import round_to
from pv.vecstore.pack import Pack
from pv.vecstore.vector import Vector, capture, open_vector

GOLDEN_BASE = "db1855338d6791164edd7353a50d5a79ee8b3ab90e5b29d4eea894be2c200a14"
GOLDEN_VECTORS = [
    "2f5e56b2a5c67d8e46ef4e0f9fa06bfe202710409d554cc80741aa38e5888527",
    "93710ad5622a09c824fe42b0e69b25cc3be72b388e05dd271f0b3a6bca4dbacf",
    "16d94ae48c7a98ba0856fe316e7c4fbedb38af4e58127a624f784723e36de1f2",
    "72c35d9cc41f36bd55fa29e9730d2498afcf540c6bca6a0391428790379f0932",
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
}
SCRIPT = Path(__file__).with_name("build_golden.py")
WHOLE = 5_000_000_000
VECTOR = [
    name
    for name in np._core._multiarray_umath.__cpu_dispatch__  # type: ignore[attr-defined]
    if np._core._multiarray_umath.__cpu_features__[name]  # type: ignore[attr-defined]
]

TENSORS = small_base()
EMBED = "model.embed_tokens.weight"
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"
POSITIONS = "model.position_ids"
FLOATING = [name for name in TENSORS if name != POSITIONS]


@dataclass(frozen=True)
class World:
    """A base, a fine-tune captured as `exact`, and two float vectors, opened; a folder to build in."""

    base: Base
    packs: PackStore
    tuned: Tensors
    exact: str
    a: str
    b: str
    deltas: Mapping[str, Mapping[str, F32]]
    vectors: Mapping[str, Vector]
    out: Path

    def build(self, persona: Persona, name: str = "out", **options: Any) -> Built:
        return build(persona, self.base, self.vectors, self.out / name, **{"side_files": {}, **options})

    def of(self, behaviours: Mapping[str, Behaviour], rule: Combine | None = None, **output: Any) -> Persona:
        return persona(self.base, behaviours, rule, **output)

    def weights(self, behaviours: Mapping[str, Behaviour], rule: Combine | None = None, **output: Any) -> str:
        """The id of the built weights; the folder is not kept in the way of the next."""
        return self.build(self.of(behaviours, rule, **output), f"n{len(list(self.out.iterdir()))}").weights

    def read(self, name: str = "out") -> dict[str, Array]:
        return read_all(self.out / name)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    packs = store(folder)
    tuned = nudged(TENSORS, 4)
    with base_at(save(folder / "base", TENSORS)) as base:
        deltas = [
            {n: random_f32(f"delta {n}", TENSORS[n].raw.size, seed=seed) for n in FLOATING} for seed in (1, 2)
        ]
        for delta in deltas[1].values():
            delta[1::2] = 0
        exact = captured(folder / "ft", tuned, base, packs).id
        a, b = kept(base, packs, deltas[0]), kept(base, packs, deltas[1])
        vectors = {v: open_vector(v, base, packs) for v in (exact, a, b)}
        known = {a: deltas[0], b: deltas[1]}
        yield World(base, packs, tuned, exact, a, b, known, vectors, folder / "unused")
        for vector in vectors.values():
            vector.close()


@pytest.fixture
def world(fixed: World, tmp_path: Path) -> World:
    from dataclasses import replace

    (tmp_path / "built").mkdir()
    return replace(fixed, out=tmp_path / "built")


def _same(a: Array, b: Array) -> bool:
    return (a.dtype, a.shape) == (b.dtype, b.shape) and a.raw.tobytes() == b.raw.tobytes()


# The same everywhere


def _report(folder: Path, threads: int, shard_bytes: int, **environment: str) -> Any:
    # PYTHONHASHSEED: nothing may hang on the order of a set.
    env = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONHASHSEED": str(threads), **environment}
    command = [sys.executable, "-W", "error", str(SCRIPT), str(folder), str(threads), str(shard_bytes)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _is_golden(report: Any) -> None:
    assert report["base"] == GOLDEN_BASE
    assert report["vectors"] == GOLDEN_VECTORS
    assert {case: made["weights"] for case, made in report["builds"].items()} == GOLDEN


def test_golden_builds(tmp_path: Path) -> None:
    whole = _report(tmp_path / "whole", 1, WHOLE)
    _is_golden(whole)
    assert whole["foreign"] == []  # a build needs no torch
    assert all(list(made["files"]) == ["model.safetensors"] for made in whole["builds"].values())

    again = _report(tmp_path / "again", 2, WHOLE)
    assert again["builds"] == whole["builds"]  # the very files

    many = _report(tmp_path / "many", 2, 3000)
    _is_golden(many)
    assert all(len(made["files"]) >= 3 for made in many["builds"].values())


@pytest.mark.skipif(not VECTOR, reason="numpy has no optional vector instructions on this processor")
def test_golden_builds_without_vector_instructions(tmp_path: Path) -> None:
    off = {"NPY_DISABLE_CPU_FEATURES": " ".join(VECTOR), "ATEN_CPU_CAPABILITY": "default"}
    report = _report(tmp_path / "plain", 2, 100_000, **off)
    assert report["vector"] == []  # or this test would show nothing
    _is_golden(report)


@pytest.mark.parametrize("shard_bytes", [1, 100, 700, 5000])
@pytest.mark.parametrize("threads", [1, 2, 7])
def test_threads_and_shards_change_no_weight(world: World, shard_bytes: int, threads: int) -> None:
    mixed = world.of({"x": behaviour(0.7, world.a), "y": behaviour(0.4, world.exact)})
    whole = world.build(mixed, "whole", threads=1)
    parts = world.build(mixed, "parts", threads=threads, shard_bytes=shard_bytes)
    assert parts.weights == whole.weights
    assert len(parts.files) == len(plan(mixed, world.base, shard_bytes=shard_bytes))
    assert all(_same(t, world.read("whole")[n]) for n, t in world.read("parts").items())


def test_the_plan(world: World) -> None:
    mixed = world.of({})
    (one,) = plan(mixed, world.base)
    assert one.file == "model.safetensors"
    assert list(one.tensors) == sorted(TENSORS)
    many = plan(mixed, world.base, shard_bytes=1000)
    assert [s.file for s in many] == [
        f"model-{i + 1:05d}-of-{len(many):05d}.safetensors" for i in range(len(many))
    ]
    assert [n for s in many for n in s.tensors] == sorted(TENSORS)
    for shard in many:
        total = sum(nbytes for _, _, nbytes in shard.tensors.values())
        assert total <= 1000 or len([1 for _, _, n in shard.tensors.values() if n]) == 1


# The right bytes


def _wide(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor.float() for name, tensor in state.items()}


@pytest.fixture(scope="module", params=["tied", "untied"])
def llama(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    tiny_tied: Path,
    tiny_untied: Path,
) -> Iterator[tuple[Path, Path, Base, Vector]]:
    """A real base, a fine-tune of it, and the captured vector."""
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("llama")
    path = tiny_tied if request.param == "tied" else tiny_untied
    state = load_file(path / "model.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        tuned = {
            n: (t.float() + 2e-3 * torch.randn(t.shape) * (torch.rand(t.shape) < 0.3)).bfloat16()
            for n, t in state.items()
        }
    (folder / "ft").mkdir()
    save_file(tuned, folder / "ft" / "model.safetensors", {"format": "pt"})
    packs = store(folder)
    with base_at(path) as base:
        with Checkpoint(folder / "ft") as checkpoint:
            vector_id = capture(checkpoint, base, packs).id
        with open_vector(vector_id, base, packs) as vector:
            yield path, folder / "ft", base, vector


@pytest.mark.parametrize(
    ("dtype", "rounding", "weight"),
    [
        ("fp32", "nearest", 1.0),
        ("fp32", "stochastic", 1.0),
        ("fp32", "nearest", -0.5),
        ("base", "nearest", 1.0),
        ("bf16", "nearest", 0.3),
        ("fp16", "nearest", 1.0),
    ],
)
def test_a_build_equals_a_few_lines_of_torch(
    tmp_path: Path,
    llama: tuple[Path, Path, Base, Vector],
    dtype: str,
    rounding: str,
    weight: float,
) -> None:
    import torch
    from safetensors.torch import load_file

    path, ft, base, vector = llama
    recipe = persona(base, {"ft": behaviour(weight, vector.id)}, dtype=dtype, rounding=rounding)
    build(recipe, base, {vector.id: vector}, tmp_path / "out", side_files={})

    before = _wide(load_file(path / "model.safetensors"))
    after = _wide(load_file(ft / "model.safetensors"))
    target = {"fp32": torch.float32, "base": torch.bfloat16, "bf16": torch.bfloat16, "fp16": torch.float16}
    built = load_file(tmp_path / "out" / "model.safetensors")
    assert built.keys() == before.keys()
    for name, tensor in built.items():
        wanted = before[name] + (after[name] - before[name]) * torch.tensor(weight)
        assert tensor.dtype == target[dtype]
        assert torch.equal(tensor, wanted.to(target[dtype])), name


def test_an_exact_vector_at_weight_1_is_the_fine_tune(
    tmp_path: Path, llama: tuple[Path, Path, Base, Vector]
) -> None:
    """In bf16 the difference is exact in fp32 for all but far apart weights, and comes back with any rounding."""
    from safetensors.torch import load_file

    _, ft, base, vector = llama
    made = persona(base, {"ft": behaviour(1.0, vector.id)})
    build(made, base, {vector.id: vector}, tmp_path / "out", side_files={})
    built, tuned = load_file(tmp_path / "out" / "model.safetensors"), load_file(ft / "model.safetensors")
    equal = sum(int((built[n] == tuned[n]).sum()) for n in tuned)
    assert equal == sum(t.numel() for t in tuned.values())


def test_stock_transformers_loads_it(tmp_path: Path, llama: tuple[Path, Path, Base, Vector]) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path, ft, base, vector = llama
    with Checkpoint(path) as checkpoint:
        keys = set(checkpoint.specs)
    recipe = persona(base, {"ft": behaviour(1.0, vector.id)})
    for name, shard_bytes in {"whole": WHOLE, "shards": 20_000}.items():
        out = tmp_path / name
        beside = side_files(path)
        build(recipe, base, {vector.id: vector}, out, side_files=beside, shard_bytes=shard_bytes)
        with Checkpoint(out) as checkpoint:
            assert set(checkpoint.specs) == keys
        model, info = AutoModelForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
        assert not any(info.values()), info
        assert model.dtype == torch.bfloat16
        tied = model.config.tie_word_embeddings
        assert tied == ("lm_head.weight" not in keys)
        assert (model.lm_head.weight is model.model.embed_tokens.weight) == tied
        tuned = AutoModelForCausalLM.from_pretrained(path, dtype="auto")
        before = tuned.state_dict()
        assert any(not torch.equal(t, before[n]) for n, t in model.state_dict().items())
        from safetensors.torch import load_file

        tuned.load_state_dict(load_file(ft / "model.safetensors"), strict=not tied)
        for key, tensor in tuned.state_dict().items():
            assert torch.equal(model.state_dict()[key], tensor), key
        assert AutoTokenizer.from_pretrained(out)("hi").input_ids
        with torch.no_grad():
            assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()


@pytest.mark.parametrize("dtype", ["base", "bf16", "fp16", "fp32"])
def test_exactly_the_bases_keys_shapes_and_dtypes(world: World, dtype: str) -> None:
    world.build(world.of({"x": behaviour(1.0, world.a)}, dtype=dtype))
    found = world.read()
    assert list(found) == sorted(TENSORS)
    converted = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
    for name, tensor in found.items():
        own = TENSORS[name].dtype
        assert tensor.dtype == (own if dtype == "base" or own == "I64" else converted[dtype])
        assert tensor.shape == TENSORS[name].shape
    assert _same(found[POSITIONS], TENSORS[POSITIONS])


def test_side_files_and_the_recipe(world: World) -> None:
    files = {"config.json": b'{"dtype": "bfloat16"}', "tokenizer.json": b"\x00\xff", "merges.txt": b"a b\n"}
    recipe = world.of({"x": behaviour(1.0, world.a)})
    made = world.build(recipe, side_files=files)
    for name, data in files.items():
        assert (world.out / "out" / name).read_bytes() == data
    assert Persona.from_bytes((world.out / "out" / "persona.json").read_bytes()) == recipe
    assert files_below(world.out) == {
        "out",
        *(f"out/{name}" for name in (*files, "model.safetensors", "persona.json")),
    }
    assert made.build == build_id(recipe)
    assert made.tensors == len(TENSORS)
    assert made.touched == len(FLOATING)
    assert made.nbytes == sum(t.raw.nbytes for t in TENSORS.values())


def test_the_stated_sums_are_of_the_files(world: World) -> None:
    import hashlib

    made = world.build(world.of({"x": behaviour(1.0, world.a)}), shard_bytes=1500)
    assert set(made.files) == {p.name for p in (world.out / "out").glob("*.safetensors")}
    for name, stated in made.files.items():
        assert hashlib.sha256((world.out / "out" / name).read_bytes()).hexdigest() == stated
    index = json.loads((world.out / "out" / INDEX).read_bytes())
    assert index["metadata"]["total_size"] == made.nbytes
    with base_at(world.out / "out") as rebuilt:
        assert rebuilt.manifest.id == made.weights  # what was built is itself a base of that id


@pytest.mark.parametrize("key", ["dtype", "torch_dtype"])
@pytest.mark.parametrize(
    ("dtype", "word"), [("bf16", "bfloat16"), ("fp16", "float16"), ("fp32", "float32"), ("base", "as it was")]
)
def test_the_config_follows_the_weights(world: World, key: str, dtype: str, word: str) -> None:
    config = json.dumps({"a": [1, 2.5], key: "as it was", "limit": float("inf")}).encode()
    world.build(world.of({}, dtype=dtype), side_files={"config.json": config, "other.json": config})
    found = (world.out / "out" / "config.json").read_bytes()
    assert json.loads(found) == {**json.loads(config), key: word}
    assert (found == config) == (dtype == "base")
    assert (world.out / "out" / "other.json").read_bytes() == config


@pytest.mark.parametrize("config", [b"", b"{", b"[]", b"\xff", b"3"])
def test_a_config_that_is_none(world: World, config: bytes) -> None:
    with pytest.raises(FormatError, match=r"config\.json"):
        world.build(world.of({}, dtype="fp32"), side_files={"config.json": config})
    assert files_below(world.out) == set()


@pytest.mark.parametrize(
    "name",
    [
        "model.safetensors",
        INDEX,
        "modeling.py",
        "pytorch_model.bin",
        "../config.json",
        ".x.json",
        "README.md",
    ],
)
def test_a_side_file_that_is_none(world: World, name: str) -> None:
    """A stranger's history may hold anything: no weights, no code, no way out of the folder."""
    with pytest.raises(FormatError, match="cannot lie beside"):
        world.build(world.of({}), side_files={name: b"{}"})
    assert files_below(world.out) == set()


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
                assert _same(found["v"], own["v"])
                assert _same(found["i"], own["i"])


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


# Stochastic rounding


def test_stochastic_builds_are_the_fp32_build_on_average(tmp_path: Path) -> None:
    own = {"w": array("w", "BF16", 600)}
    base_values = values(own["w"])
    delta = base_values * np.float32(2**-9) * random_f32("share", 600, least=126, spread=1)  # < half a step
    seeds = range(64)
    with base_at(save(tmp_path / "base", own)) as base:
        packs = store(tmp_path)
        vector_id = kept(base, packs, {"w": delta})
        with open_vector(vector_id, base, packs) as vector:

            def built(**output: Any) -> F32:
                made = persona(base, {"x": behaviour(1.0, vector_id)}, **output)
                name = f"{output}"
                build(made, base, {vector_id: vector}, tmp_path / name, side_files={})
                return values(read_all(tmp_path / name)["w"]).astype(np.float64)

            exact = built(dtype="fp32")
            draws = np.stack([built(dtype="bf16", seed=seed) for seed in seeds])  # (seeds, 600)
            nearest = built(dtype="bf16", rounding="nearest")
    step = np.abs(2.0 ** (np.floor(np.log2(np.abs(exact))) - 7))
    assert np.array_equal(exact, (base_values + delta).astype(np.float64))
    assert (np.abs(draws - exact) < step).all()  # one of the two neighbours
    error = (draws.mean(axis=0) - exact) / step
    assert np.abs(error).max() < 5 * 0.5 / np.sqrt(len(seeds))  # five standard deviations at most
    assert abs(error.mean()) < 5 * 0.5 / np.sqrt(len(seeds) * 600)
    moved = np.abs(nearest - base_values) > 0
    assert moved.mean() < 0.5  # which rounding to nearest mostly loses
    assert (np.abs(draws.mean(axis=0) - base_values) > 0).mean() > 0.99


# Refused, and nothing left


def _refused(world: World, recipe: Persona, kind: type[PvError], match: str, **options: Any) -> PvError:
    before = files_below(world.out)
    with pytest.raises(kind, match=match) as caught:
        world.build(recipe, **options)
    assert files_below(world.out) == before
    return caught.value


@pytest.mark.parametrize(
    ("dtype", "weight"), [("base", 1e30), ("bf16", 1e30), ("fp16", 3e9), ("fp32", 1e30), ("fp32", -1e30)]
)
def test_overflow(tmp_path: Path, world: World, dtype: str, weight: float) -> None:
    big = {NORM: np.full(12, 1e10, np.float32)}
    vector_id = kept(world.base, world.packs, big)
    with open_vector(vector_id, world.base, world.packs) as vector:
        recipe = world.of({"x": behaviour(weight, vector_id)}, dtype=dtype)
        with pytest.raises(IntegrityError, match=f"'{NORM}'.*infinite") as caught:
            build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert "smaller weights" in (caught.value.hint or "")
    assert files_below(world.out) == set()


def test_a_base_that_is_too_wide_for_the_output(tmp_path: Path) -> None:
    wide = {"w": Array("F32", (3,), np.array([1.0, 70_000.0, 2.0], np.float32).view("<u4"))}
    (tmp_path / "built").mkdir()
    with base_at(save(tmp_path / "base", wide)) as base:
        with pytest.raises(IntegrityError, match="F16"):
            build(persona(base, {}, dtype="fp16"), base, {}, tmp_path / "built" / "out", side_files={})
        assert files_below(tmp_path / "built") == set()
        build(persona(base, {}, dtype="bf16"), base, {}, tmp_path / "built" / "out", side_files={})


def test_infinities_of_the_base_itself_pass(tmp_path: Path) -> None:
    strange = np.array([np.inf, -np.inf, np.nan, 1.0], np.float32).view("<u4")
    delta = {"w": np.array([1.0, 1.0, 1.0, 1.0], np.float32)}
    with base_at(save(tmp_path / "base", {"w": Array("F32", (4,), strange)})) as base:
        packs = store(tmp_path)
        vector_id = kept(base, packs, delta)
        with open_vector(vector_id, base, packs) as vector:
            recipe = persona(base, {"x": behaviour(1.0, vector_id)}, dtype="bf16")
            build(recipe, base, {vector_id: vector}, tmp_path / "out", side_files={})
    found = values(read_all(tmp_path / "out")["w"])
    assert found[:2].tolist() == [np.inf, -np.inf]
    assert np.isnan(found[2])
    assert found[3] == 2.0


def test_a_persona_of_another_base(world: World) -> None:
    recipe = Persona("0" * 64, {"x": behaviour(1.0, world.a)})
    _refused(world, recipe, BaseMismatch, f"base 000000000000, this is {world.base.manifest.id[:12]}")


def test_a_weight_without_meaning_is_refused_by_name(world: World) -> None:
    rule = Combine.of("ties", merge="weighted_mean")
    recipe = world.of({"grumpy": behaviour(-1.0, world.a)}, rule)
    _refused(world, recipe, UsageError, "'grumpy'")


def test_a_vector_for_integers(tmp_path: Path, world: World) -> None:
    vector_id = kept(world.base, world.packs, {POSITIONS: np.ones(16, np.float32)})
    with (
        open_vector(vector_id, world.base, world.packs) as vector,
        pytest.raises(IntegrityError, match="I64"),
    ):
        recipe = world.of({"x": behaviour(1.0, vector_id)})
        build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert files_below(world.out) == set()


def test_a_folder_that_is_not_empty(world: World) -> None:
    recipe = world.of({"x": behaviour(1.0, world.a)})
    theirs = world.out / "out"
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("three years")
    error = _refused(world, recipe, UsageError, "exists and is not empty")
    assert "new folder" in (error.hint or "")
    _refused(world, recipe, UsageError, "exists and is not empty", force=True)
    assert (theirs / "thesis.txt").read_text() == "three years"


def test_a_file_in_the_way(world: World) -> None:
    (world.out / "out").write_text("three years")
    for force in (False, True):
        _refused(world, world.of({}), UsageError, "exists", force=force)
    assert (world.out / "out").read_text() == "three years"


def test_force_replaces_what_pv_built(world: World) -> None:
    first, second = (world.of({"x": behaviour(w, world.a)}) for w in (1.0, 0.5))
    world.build(first, shard_bytes=1000)
    error = _refused(world, second, UsageError, "exists and is not empty")
    assert "--force" in (error.hint or "")
    assert Persona.from_bytes((world.out / "out" / "persona.json").read_bytes()) == first
    made = world.build(second, force=True)
    assert files_below(world.out) == {"out", "out/model.safetensors", "out/persona.json"}
    assert Persona.from_bytes((world.out / "out" / "persona.json").read_bytes()) == second
    assert made.weights == world.build(second, "again").weights


@pytest.mark.parametrize("precious", [".pv", ".git", "notes"])
def test_force_spares_a_folder_that_holds_more(world: World, precious: str) -> None:
    """A cloned registry has a built checkpoint and `.pv` in one folder: it must not be replaced."""
    recipe = world.of({"x": behaviour(1.0, world.a)})
    world.build(recipe)
    (world.out / "out" / precious).mkdir()
    (world.out / "out" / precious / "file").write_text("three years")
    error = _refused(world, recipe, UsageError, "exists and is not empty", force=True)
    assert "new folder" in (error.hint or "")


def test_force_needs_a_true_recipe(world: World) -> None:
    theirs = world.out / "out"
    theirs.mkdir()
    (theirs / "persona.json").write_text('{"name": "Hamlet"}')
    _refused(world, world.of({}), UsageError, "exists and is not empty", force=True)


@pytest.mark.parametrize("kind", ["nothing", "empty", "link"])
def test_where_a_build_may_go(world: World, kind: str) -> None:
    target = world.out / "deep" / "er"
    if kind != "nothing":
        target.mkdir(parents=True)
    if kind == "link":
        (world.out / "link").symlink_to(target)
    made = world.build(world.of({}), "link" if kind == "link" else "deep/er")
    assert (target / "model.safetensors").is_file()
    assert made.weights == world.base.manifest.id
    assert [p for p in files_below(world.out) if ".pv-" in p] == []


# Failures in the middle


def _changed_in_place(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("how", ["changed", "shorter"])
@pytest.mark.parametrize("replacing", [False, True])
def test_a_base_that_changes_under_a_build(tmp_path: Path, how: str, replacing: bool) -> None:
    """After the first tensors are written. What was at the target stays."""
    folder = save(tmp_path / "base", TENSORS)
    out = tmp_path / "built" / "out"
    out.parent.mkdir()
    with base_at(folder) as base:
        recipe = persona(base, {})
        if replacing:
            build(recipe, base, {}, out, side_files={})
        before = {p: p.read_bytes() for p in out.rglob("*")}
        whole = (folder / "model.safetensors").stat().st_size

        def meddle(done: int, total: int) -> None:
            if how == "changed":
                _changed_in_place(folder / "model.safetensors", whole - 1)
            else:
                os.truncate(folder / "model.safetensors", whole - 1)

        with pytest.raises(IntegrityError, match=r"changed|became shorter") as caught:
            build(
                recipe, base, {}, out, side_files={}, shard_bytes=500, force=True, threads=1, progress=meddle
            )
    assert isinstance(caught.value, BaseMismatch) == (how == "changed")
    assert {p: p.read_bytes() for p in out.rglob("*")} == before
    assert list(out.parent.iterdir()) == ([out] if replacing else [])


def test_a_vector_that_is_damaged(tmp_path: Path, world: World) -> None:
    vector_id = kept(world.base, world.packs, {NORM: random_f32("to be damaged", 12)})
    path = world.packs.path(vector_id)
    with Pack(path) as pack:
        start = pack._file.data_start
    path.chmod(0o644)
    _changed_in_place(path, start + 20)
    with open_vector(vector_id, world.base, world.packs) as vector, pytest.raises(CorruptPack, match=NORM):
        recipe = world.of({"x": behaviour(1.0, vector_id)})
        build(recipe, world.base, {vector_id: vector}, world.out / "out", side_files={})
    assert files_below(world.out) == set()
    path.unlink()


@pytest.mark.parametrize("after", [1, 5, len(TENSORS)])
@pytest.mark.parametrize("threads", [1, 2])
def test_an_interrupted_build_leaves_nothing(world: World, after: int, threads: int) -> None:
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.build(world.of({}), threads=threads, shard_bytes=1000, progress=progress)
    assert files_below(world.out) == set()


def test_a_full_disk(world: World) -> None:
    """A limit on file sizes stands in for it: the write is refused by the system just the same."""
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path(__file__).parent.parent)!r})\n"
        "from vector_kit import base_at, persona\n"
        "from pv.vecstore.build import build\n"
        "from pv.registry.errors import StorageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with base_at(Path(sys.argv[1])) as base:\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "    try: build(persona(base, {}), base, {}, Path(sys.argv[2]), side_files={})\n"
        "    except StorageError as error: print(error.exit_code, error.hint)\n"
    )
    path = world.base.checkpoint.path if world.base.checkpoint else None
    command = [sys.executable, "-W", "error", "-c", code, str(path), str(world.out / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("74 ")
    assert files_below(world.out) == set()


def test_progress_counts_the_bytes_of_the_result(world: World) -> None:
    seen: list[tuple[int, int]] = []
    made = world.build(world.of({}, dtype="fp32"), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (made.nbytes, made.nbytes)
    assert len(seen) == len(TENSORS)


def test_a_build_id_is_of_the_persona(world: World) -> None:
    x = world.of({"x": behaviour(1.0, world.a)})
    same = Persona(x.base, dict(x.behaviours), Combine.of("add"), Output("base", "stochastic", 0))
    assert build_id(same) == build_id(x)
    assert build_id(world.of({"x": behaviour(2.0, world.a)})) != build_id(x)


def test_rounding_is_the_engines(world: World) -> None:
    """Element i of a tensor draws the random bits of index i under the tensor's name."""
    world.build(world.of({"x": behaviour(1.0, world.a)}, dtype="bf16", seed=3))
    for name in FLOATING:
        wide = values(TENSORS[name]) + world.deltas[world.a][name]
        wanted = round_to(wide, "BF16", "stochastic", seed=3, name=name, start=0)
        assert world.read()[name].raw.tobytes() == wanted.tobytes()
