"""Baked biases, held against hooks: in every architecture of the table, by what stock transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.baking import BAKED, WIDE, direction, loaded, logits, new_repo, steer, tiny_baked

from pv.registry.errors import UsageError
from pv.registry.manifest import Spec
from pv.vecstore.activations.architectures import FAMILIES, REFUSED
from pv.vecstore.activations.bake import plan_bake
from pv.vecstore.activations.hooks import steered
from pv.vecstore.activations.sites import blocks
from pv.vecstore.activations.steering import Condition, Term


def base_of(model: Any) -> tuple[dict[str, Any], dict[str, Spec]]:
    """config.json, and the table of tensors, as they are saved."""
    config = json.loads(model.config.to_json_string(use_diff=False))
    return config, {name: Spec("F32", tuple(one.shape)) for name, one in model.state_dict().items()}


def sites_of(model: Any, attention: str, mlp: str) -> dict[str, int]:
    """Every kind of site that has a bias, in either layer, with its width."""
    first, second = blocks(model)
    found: dict[str, int] = {}
    if attention:
        module = model.get_submodule(f"{second}.{attention}")
        inner = module.weight.shape[0 if type(module).__name__ == "Conv1D" else 1]
        found |= {
            f"{first}.{attention}": WIDE,
            f"{second}.{attention.split('.')[0]}": WIDE,
            f"{second}.{attention}:input": inner,
            f"{first}.{attention}:input[3/4]": inner // 4,
        }
    if mlp:
        found |= {first: WIDE, second: WIDE, f"{second}[1/2]": WIDE // 2, f"{first}.{mlp}": WIDE}
        if "." in mlp:
            found[f"{second}.{mlp.split('.')[0]}"] = WIDE
    return found


@pytest.mark.parametrize("name", BAKED)
def test_a_baked_folder_does_what_the_hook_does(name: str, tmp_path: Path) -> None:
    model = tiny_baked(name)
    model.save_pretrained(tmp_path / "base")
    sites = sites_of(model, *BAKED[name][2:])
    given = {site: direction(width, seed) for seed, (site, width) in enumerate(sites.items())}
    with new_repo(tmp_path, tmp_path / "base") as repo:
        for number, (site, one) in enumerate(given.items()):
            steer(repo.registry, f"t{number}", {site: one}, 0.5 if number % 2 else -2.0)
        made = repo.at("HEAD").build(tmp_path / "out", threads=1)
        assert made.baked == tuple(sorted(f"t{number}" for number in range(len(given)))) and not made.unbaked
        assert not (tmp_path / "out" / "steering.json").exists()
        assert repo.at("HEAD").verify(tmp_path / "out", threads=1).same
    stock = logits(loaded(tmp_path / "out"))
    edits = {
        site: torch.from_numpy((0.5 if number % 2 else -2.0) * one)
        for number, (site, one) in enumerate(given.items())
    }
    with steered(model, edits):
        hooked = logits(model)
    assert (hooked - logits(model)).abs().max() > 0.1
    assert (stock - hooked).abs().max() < 1e-4


def test_every_architecture_of_the_table_is_held_against_its_model() -> None:
    assert {BAKED[name][0].lower().replace("_", "") for name in BAKED} == {
        kind.replace("_", "") for kind in FAMILIES
    }
    assert not FAMILIES.keys() & REFUSED.keys()


@pytest.fixture(scope="module")
def llama() -> tuple[dict[str, Any], dict[str, Spec]]:
    return base_of(tiny_baked("llama"))


def test_the_other_biases_are_zero(llama: tuple[dict[str, Any], dict[str, Spec]]) -> None:
    one = direction(WIDE)
    plan = plan_bake(*llama, {"a": Term({"model.layers.1": one}, 3.0)})
    assert plan.config == {"mlp_bias": True} and plan.baked == ("a",) and not plan.unbaked
    assert plan.biases.keys() == {
        f"model.layers.{layer}.mlp.{of}_proj.bias" for layer in (0, 1) for of in ("gate", "up", "down")
    }
    for name, bias in plan.biases.items():
        wanted = 3 * one.astype(np.float64) if name == "model.layers.1.mlp.down_proj.bias" else 0
        assert (bias.constant == wanted).all() and bias.through is None
        assert len(bias.constant) == (WIDE if "down" in name else 48)


ONE = {"model.layers.0": direction(WIDE)}
WHEN = Condition("model.layers.0", direction(WIDE), 0.5)


@pytest.mark.parametrize(
    ("terms", "rule", "why"),
    [
        ({"a": Term(ONE)}, "preserve-norm", "depends on the activation"),
        ({"a": Term(ONE, positions="prompt")}, "add", "for the prompt alone"),
        ({"a": Term(ONE, positions="reply")}, "add", "for the reply alone"),
        ({"a": Term(ONE, positions="reply", when=WHEN)}, "add", "depends on the prompt"),
        ({"a": Term(ONE), "b": Term(ONE, positions="reply", when=WHEN)}, "add", "whether b applies"),
        ({"a": Term({"model.norm": direction(WIDE)})}, "add", "model.norm is no part of a block"),
        ({"a": Term({"lm_head": direction(WIDE)})}, "add", "lm_head is no part of a block"),
        ({"a": Term({"model.layers.0:input": direction(WIDE)})}, "add", "is not what a block"),
        ({"a": Term({"model.layers.00": direction(WIDE)})}, "add", "no part of a block"),
        (
            {"a": Term({**ONE, "model.layers.0.input_layernorm": direction(WIDE)})},
            "add",
            "is not what a block",
        ),
    ],
)
def test_what_is_not_exactly_that_is_listed(
    llama: tuple[dict[str, Any], dict[str, Spec]], terms: dict[str, Term], rule: str, why: str
) -> None:
    plan = plan_bake(*llama, terms, rule)
    assert not plan.biases and not plan.config and not plan.baked
    assert plan.unbaked.keys() == terms.keys() and why in plan.unbaked["a"]


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"model_type": "gemma2"}, "norm follows"),
        ({"model_type": "qwen2"}, "offers none"),
        ({"model_type": "granite"}, "scaled"),
        ({"model_type": "llama", "num_local_experts": 4}, "mixture of experts"),
        ({"model_type": "rwkv"}, "has not been told where a rwkv"),
        ({}, "has not been told"),
        ({"model_type": "llama", "auto_map": {"AutoModel": "x.Y"}}, "code is its own"),
        ({"model_type": "llama", "quantization_config": {"bits": 4}}, "quantized"),
        ({"model_type": "llama", "pretraining_tp": 2}, "pretraining_tp"),
        ({"model_type": "opt", "do_layer_norm_before": False}, "norm follows"),
        ({"model_type": "gpt2"}, "not named as its config says"),
        ({"model_type": "qwen3"}, "mlp.down_proj has no bias"),
    ],
)
def test_where_nothing_can_be_baked(
    llama: tuple[dict[str, Any], dict[str, Spec]], config: dict[str, Any], why: str
) -> None:
    plan = plan_bake(config, llama[1], {"a": Term(ONE)})
    assert not plan.biases and why in plan.unbaked["a"]


@pytest.mark.parametrize(
    ("site", "size", "message", "hint"),
    [
        ("model.layers.2", WIDE, "layer 2, which this base does not have", "its layers are 0 to 1"),
        ("model.layers.0", WIDE + 1, "33 numbers does not fit model.layers.0, which has 32", "another model"),
        ("model.layers.0.mlp", 48, "48 numbers does not fit", "another model"),
        ("model.layers.1.self_attn.o_proj:input[1/3]", 8, "do not divide by 3", "number of heads"),
        ("model layers", WIDE, "names no site", "a module's name"),
    ],
)
@pytest.mark.parametrize("positions", ["all", "reply"])
def test_what_cannot_be_right_is_an_error(
    llama: tuple[dict[str, Any], dict[str, Spec]],
    site: str,
    size: int,
    message: str,
    hint: str,
    positions: Any,
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        plan_bake(*llama, {"a": Term({site: direction(size)}, positions=positions)})
    assert hint in (error.value.hint or "")


def test_tensors_may_lack_the_name_of_the_model_that_blocks_are_in() -> None:
    config, specs = base_of(tiny_baked("gpt2"))
    bare = {name.removeprefix("transformer."): spec for name, spec in specs.items()}
    plan = plan_bake(config, bare, {"a": Term({"transformer.h.1": direction(WIDE)})})
    assert plan.biases.keys() == {"h.1.mlp.c_proj.bias"} and not plan.config
