"""Builds: the right tensors, in the base's own keys, beside the right files; and what torch would have made."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import (
    FLOATING,
    WHOLE,
    World,
    array,
    base_at,
    behaviour,
    files_below,
    kept,
    persona,
    random_f32,
    read_all,
    same_bits,
    save,
    small_base,
    store,
    values,
)

from pv.registry.combine import Combine
from pv.registry.errors import FormatError
from pv.registry.persona import Output, Persona
from pv.vecstore.checkpoints.checkpoint import INDEX, Checkpoint
from pv.vecstore.checkpoints.side_files import side_files
from pv.vecstore.merge.build import build, build_id
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.vector import Vector, open_vector

TENSORS = small_base()
POSITIONS = "model.position_ids"


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
    assert same_bits(found[POSITIONS], TENSORS[POSITIONS])


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


def test_progress_counts_the_bytes_of_the_result(world: World) -> None:
    seen: list[tuple[int, int]] = []
    made = world.build(world.of({}, dtype="fp32"), progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (made.nbytes, made.nbytes)
    assert seen[0] == (0, made.nbytes)
    assert len(seen) == 1 + len(TENSORS)


def test_a_build_id_is_of_the_persona(world: World) -> None:
    x = world.of({"x": behaviour(1.0, world.a)})
    same = Persona(x.base, dict(x.behaviours), Combine.of("add"), Output("base", "stochastic", 0))
    assert build_id(same) == build_id(x)
    assert build_id(world.of({"x": behaviour(2.0, world.a)})) != build_id(x)


# Against torch and transformers


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


# Stochastic rounding


def test_rounding_is_the_engines(world: World) -> None:
    """Element i of a tensor draws the random bits of index i under the tensor's name."""
    world.build(world.of({"x": behaviour(1.0, world.a)}, dtype="bf16", seed=3))
    for name in FLOATING:
        wide = values(TENSORS[name]) + world.deltas[world.a][name]
        wanted = round_to(wide, "BF16", "stochastic", seed=3, name=name, start=0)
        assert world.read()[name].raw.tobytes() == wanted.tobytes()


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
