"""Adapters as PEFT writes them, against PEFT's own `merge_and_unload` in fp32.

For each: the base plus the captured tau is what PEFT merges, tensor by tensor, and factors are kept bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.adapters import (
    Model,
    Q,
    adapted,
    agrees,
    captured,
    gpt2_config,
    keys_of,
    llama,
    llama_with_biases,
    merged,
    noisy,
    quiet,
)
from support.vectors import base_at, store

from pv.registry.errors import CheckpointRefused
from pv.registry.manifest import VectorManifest
from pv.vecstore.tensors.formats import to_f32
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.vector import open_vector

with quiet():
    import peft
    from safetensors.torch import load_file, save_file
    from transformers import (
        AutoModelForCausalLM,
        GPT2LMHeadModel,
        GPT2Model,
        Qwen2MoeConfig,
        Qwen2MoeForCausalLM,
    )

pytestmark = pytest.mark.usefixtures("same_numbers")


# ------------------------------------------------------------------------------- what is understood

SUPPORTED: dict[str, tuple[Model, dict[str, Any]]] = {
    "lora": (llama, {"target_modules": ["q_proj", "down_proj"]}),
    "every linear": (llama, {"target_modules": "all-linear", "r": 3, "lora_alpha": 16}),
    "rslora": (llama, {"target_modules": ["q_proj", "v_proj"], "use_rslora": True}),
    "patterns": (
        llama,
        {
            "target_modules": ["q_proj", "k_proj", "down_proj"],
            "rank_pattern": {"layers.0.self_attn.q_proj": 2, r"layers\.\d+\.mlp.down_proj": 6, "q_proj": 3},
            "alpha_pattern": {"^model.layers.1.self_attn.k_proj": 11, "down_proj": 5},
        },
    ),
    "rslora with patterns": (
        llama,
        {
            "target_modules": ["q_proj", "v_proj"],
            "use_rslora": True,
            "rank_pattern": {"v_proj": 9},
            "alpha_pattern": {".*1.*v_proj": 3},
        },
    ),
    "a rank above the matrix": (llama, {"target_modules": ["k_proj"], "r": 40}),
    "embedding": (llama, {"target_modules": ["embed_tokens", "q_proj"]}),
    "head": (llama, {"target_modules": ["lm_head", "q_proj"]}),
    "modules to save": (
        llama,
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ),
    "whole blocks to save": (llama, {"target_modules": ["q_proj"], "modules_to_save": ["mlp", "norm"]}),
    "bias all": (llama_with_biases, {"target_modules": ["q_proj"], "bias": "all"}),
    "bias lora_only": (llama_with_biases, {"target_modules": ["q_proj", "up_proj"], "bias": "lora_only"}),
    "lora_bias": (llama_with_biases, {"target_modules": ["q_proj", "up_proj"], "lora_bias": True}),
    "both biases": (llama_with_biases, {"target_modules": ["q_proj"], "lora_bias": True, "bias": "all"}),
    "dora": (llama, {"target_modules": ["q_proj", "down_proj"], "use_dora": True}),
    "dora and rslora": (llama, {"target_modules": ["q_proj"], "use_dora": True, "use_rslora": True}),
    "dora of an embedding": (llama, {"target_modules": ["embed_tokens", "o_proj"], "use_dora": True}),
    "dora of a Conv1D": (
        lambda: GPT2LMHeadModel(gpt2_config()),
        {"target_modules": ["c_attn", "c_proj"], "use_dora": True, "fan_in_fan_out": True},
    ),
    "Conv1D": (
        lambda: GPT2LMHeadModel(gpt2_config()),
        {"target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True},
    ),
    "a square Conv1D alone": (
        lambda: GPT2LMHeadModel(gpt2_config()),
        {"target_modules": ["attn.c_proj"], "fan_in_fan_out": True},
    ),
    "gaussian start": (llama, {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"}),
    "orthogonal start": (llama, {"target_modules": ["q_proj"], "init_lora_weights": "orthogonal"}),
    "mica": (llama, {"target_modules": ["q_proj", "o_proj"], "init_lora_weights": "mica"}),
    "linear layers of a mixture": (
        lambda: Qwen2MoeForCausalLM(
            Qwen2MoeConfig(
                vocab_size=40,
                hidden_size=16,
                intermediate_size=12,
                moe_intermediate_size=8,
                shared_expert_intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                num_experts=2,
                num_experts_per_tok=1,
            )
        ),
        {"target_modules": ["q_proj", "shared_expert.down_proj"]},
    ),
}


@pytest.mark.parametrize(("model", "options"), SUPPORTED.values(), ids=SUPPORTED.keys())
def test_an_adapter_does_what_peft_merges(tmp_path: Path, model: Model, options: dict[str, Any]) -> None:
    adapter = adapted(model(), tmp_path, **options)
    if "mixture" in str(options) or "shared_expert" in str(options):
        agrees(
            adapter, {n: t for n, t in merged(adapter).items() if ".experts." not in n} | _experts(adapter)
        )
    else:
        agrees(adapter)


def _experts(adapter: Path) -> dict[str, torch.Tensor]:
    """The base's own, under the names that it is saved with: no adapter here touches them."""
    base = load_file(adapter.parent / "base" / "model.safetensors")
    return {name: tensor for name, tensor in base.items() if ".experts." in name}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_factors_are_kept_bit_for_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj", "embed_tokens", "up_proj"], lora_alpha=5)
    narrow = {
        key: tensor if "base_layer" in key else tensor.to(dtype) for key, tensor in keys_of(adapter).items()
    }
    save_file(narrow, adapter / "adapter_model.safetensors")
    packs = store(tmp_path / "packs")
    with base_at(tmp_path / "base") as base:
        manifest, facts = capture_adapter(adapter, base, packs)
        with open_vector(manifest.id, base, packs) as vector:
            for key, tensor in narrow.items():
                if "base_layer" in key:
                    continue
                name, _, role = key.removeprefix("base_model.model.").partition(".lora_")
                # an embedding's factors swap sides: its matrix lies across the base's
                part, turned = {"A.weight": ("a", False), "B.weight": ("b", False)}.get(
                    role, ("b" if role == "embedding_A" else "a", True)
                )
                wanted = (tensor.T if turned else tensor).contiguous()
                row = manifest.tensors[f"{name}.weight"][part]
                found = vector.pack.read(f"{name}.weight", part)
                assert row.shape == tuple(wanted.shape)
                assert found.tobytes() == wanted.view(torch.uint8).numpy().tobytes()
            scale = vector.pack.read(f"{Q}.weight", "s")
            assert to_f32(scale, "F32")[0] == np.float32(5 / 4)
    assert facts["transposed"] == ["model.embed_tokens.weight"]
    assert facts["config"]["r"] == 4
    assert "base_model_name_or_path" not in facts["config"]  # a folder of somebody's
    agrees(adapter)


def test_what_replaces_a_tensor_is_kept_bit_for_bit(tmp_path: Path) -> None:
    adapter = adapted(
        llama(), tmp_path, dtype=torch.bfloat16, target_modules=["q_proj"], modules_to_save=["lm_head"]
    )
    kept = keys_of(adapter)["base_model.model.lm_head.weight"]
    with captured(adapter) as (_, manifest, _, facts):
        assert manifest.tensors["lm_head.weight"].keys() == {"ft"}
        assert facts["replaced"] == ["lm_head.weight"]
        with open_pack(adapter, manifest) as read:
            assert read("lm_head.weight", "ft") == kept.contiguous().view(torch.uint8).numpy().tobytes()


@contextmanager
def open_pack(adapter: Path, manifest: VectorManifest) -> Iterator[Callable[[str, str], bytes]]:
    from pv.vecstore.vectors.vector import reference_to

    packs = store(adapter.parent / "packs")
    with base_at(adapter.parent / "base") as base, open_vector(manifest.id, base, packs) as vector:
        yield lambda name, part: vector.pack.read(
            name,
            part,
            reference_to(base.manifest.tensors[name], manifest.tensors[name], partial(base.raw, name)),
        ).tobytes()


def test_a_half_precision_base(tmp_path: Path) -> None:
    agrees(adapted(llama(), tmp_path, dtype=torch.bfloat16, target_modules=["q_proj", "embed_tokens"]))


def test_dora_on_a_half_precision_base(tmp_path: Path) -> None:
    agrees(adapted(llama(), tmp_path, dtype=torch.bfloat16, target_modules=["q_proj"], use_dora=True))


def test_a_converted_pissa_adapter(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        config = peft.LoraConfig(r=3, target_modules=["q_proj", "v_proj"], init_lora_weights="pissa")
        wrapped = peft.get_peft_model(model, config)
        wrapped.peft_config["default"].init_lora_weights = True
        wrapped.save_pretrained(tmp_path / "start")
        wrapped.peft_config["default"].init_lora_weights = "pissa"
        noisy(wrapped, lambda name: "lora_" in name)
        wrapped.save_pretrained(tmp_path / "raw")
        # PEFT doubles rank and alpha of the configuration it holds: read the trained weights first
        trained = {name: tensor.clone() for name, tensor in wrapped.merge_and_unload().state_dict().items()}
    with pytest.raises(CheckpointRefused, match="PiSSA") as caught, base_at(tmp_path / "base") as base:
        capture_adapter(tmp_path / "raw", base, store(tmp_path / "packs"))
    assert "path_initial_model_for_weight_conversion" in (caught.value.hint or "")

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
        again = peft.get_peft_model(model, config)
        peft.set_peft_model_state_dict(again, keys_of(tmp_path / "raw"))
        again.save_pretrained(
            tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start")
        )
    agrees(tmp_path / "adapter", trained)


# ---------------------------------------------------------------------------------- tied embeddings


def test_an_embedding_that_is_the_head_too(tmp_path: Path) -> None:
    adapter = adapted(llama(tied=True), tmp_path, target_modules=["embed_tokens", "q_proj"])
    facts = agrees(adapter)
    assert facts["notes"] == [
        "the head moves with model.embed_tokens.weight: the base keeps both as one tensor"
    ]


def test_a_tied_pair_moves_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}
    adapter = adapted(llama(tied=True), tmp_path, **options)
    assert "base_model.model.lm_head.lora_A.weight" in keys_of(adapter)
    with captured(adapter) as (_, manifest, taus, _):
        name = "model.embed_tokens.weight"
        keys = keys_of(adapter)
        a, b = (keys[f"base_model.model.model.embed_tokens.lora_embedding_{x}"] for x in "AB")
        delta = (b @ a).T * (6 / 4)
        assert np.allclose(taus[name].reshape(delta.shape), delta.numpy(), rtol=1e-5, atol=1e-7)
        assert sorted(manifest.tensors) == [
            name,
            *(f"model.layers.{i}.self_attn.q_proj.weight" for i in (0, 1)),
        ]


def test_a_tied_replacement_counts_once(tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "target_modules": ["q_proj"],
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    }
    adapter = adapted(llama(tied=True), tmp_path, **options)
    keys = keys_of(adapter)
    assert torch.equal(
        keys["base_model.model.lm_head.weight"], keys["base_model.model.model.embed_tokens.weight"]
    )
    agrees(adapter)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
    ],
    ids=["lora", "replaced", "both replaced"],
)
def test_a_head_apart_from_its_embedding_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = adapted(llama(tied=True), tmp_path, **options)
    with (
        pytest.raises(CheckpointRefused, match=r"'lm_head\.weight' apart from the embedding"),
        captured(adapter),
    ):
        pass


def test_a_copy_of_the_embedding_that_was_trained(tmp_path: Path) -> None:
    """`base_layer.weight` that differs from the base: it takes the base's place, and the factors go on top."""
    adapter = adapted(llama(), tmp_path, target_modules=["embed_tokens"])
    keys = keys_of(adapter)
    copy = "base_model.model.model.embed_tokens.base_layer.weight"
    keys[copy] = keys[copy] + 0.25
    save_file(keys, adapter / "adapter_model.safetensors")
    with captured(adapter) as (_, manifest, taus, facts):
        name = "model.embed_tokens.weight"
        assert manifest.tensors[name].keys() == {"tau"}
        a, b = (keys[f"base_model.model.model.embed_tokens.lora_embedding_{x}"] for x in "AB")
        wanted = (0.25 + (b @ a).T * (6 / 4)).numpy().reshape(-1)
        assert np.allclose(taus[name], wanted, rtol=1e-5, atol=1e-6)
        assert facts["dense"] == [name]


# -------------------------------------------------------------------------------------------- names


def test_a_base_that_was_saved_without_the_outer_name(tmp_path: Path) -> None:
    """GPT-2 on the Hub: the checkpoint says `h.0...`, the model and its adapters `transformer.h.0...`."""
    inner = GPT2Model(gpt2_config())
    inner.save_pretrained(tmp_path / "base")
    with quiet():
        model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
        wrapped = peft.get_peft_model(
            model, peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True)
        )
        noisy(wrapped, lambda name: "lora_" in name).save_pretrained(tmp_path / "adapter")
        whole = {n: t.clone() for n, t in wrapped.merge_and_unload().state_dict().items()}
    facts = agrees(tmp_path / "adapter", whole, rename="transformer.")
    assert facts["renamed"] == ["transformer.", ""]


def test_an_adapter_of_the_inner_model(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base").model
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        noisy(wrapped, lambda name: "lora_" in name).save_pretrained(tmp_path / "adapter")
        whole = {f"model.{n}": t.clone() for n, t in wrapped.merge_and_unload().state_dict().items()}
        whole["lm_head.weight"] = load_file(tmp_path / "base" / "model.safetensors")["lm_head.weight"]
    agrees(tmp_path / "adapter", whole)


def test_experts_one_by_one(tmp_path: Path) -> None:
    """An adapter from before transformers fused experts, on a base that is saved expert by expert."""
    model, options = SUPPORTED["linear layers of a mixture"]
    adapter = adapted(model(), tmp_path, **options)
    expert = "model.layers.0.mlp.experts.1.down_proj"
    a, b = torch.randn(4, 8), torch.randn(16, 4)
    keys = {f"base_model.model.{expert}.lora_A.weight": a, f"base_model.model.{expert}.lora_B.weight": b}
    save_file(keys, adapter / "adapter_model.safetensors")
    with captured(adapter) as (_, _, taus, _):
        assert list(taus) == [f"{expert}.weight"]
        assert np.allclose(taus[f"{expert}.weight"], (b @ a).numpy().reshape(-1) * 1.5, rtol=1e-5, atol=1e-6)
