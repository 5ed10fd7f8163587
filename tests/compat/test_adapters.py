"""Adapters as PEFT writes them, against PEFT's own `merge_and_unload` in fp32.

For each: the base plus the captured tau is what PEFT merges, tensor by tensor, and factors are kept bit for bit.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny import tiny_model
from vector_kit import base_at, store

from pv.registry.errors import CheckpointRefused, FormatError, NotFoundError, PvError, UsageError
from pv.registry.manifest import VectorManifest
from pv.vecstore.adapter import capture_adapter
from pv.vecstore.adapter_file import is_adapter
from pv.vecstore.base import Base
from pv.vecstore.engine.formats import to_f32
from pv.vecstore.vector import open_vector

CLOSE = 1e-6
Q = "model.layers.0.self_attn.q_proj"
Model = Callable[[], Any]


@contextmanager
def quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


with quiet():
    import peft
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    from transformers import (
        AutoModelForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        GPT2Model,
        LlamaConfig,
        LlamaForCausalLM,
        Qwen2MoeConfig,
        Qwen2MoeForCausalLM,
    )


@pytest.fixture(autouse=True)
def same_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        yield


def llama(*, tied: bool = False) -> Any:
    return tiny_model(layers=2, hidden=24, tied=tied)


def llama_with_biases() -> Any:
    config = LlamaConfig(
        vocab_size=40,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        attention_bias=True,
        mlp_bias=True,
    )
    return noisy(LlamaForCausalLM(config), lambda name: name.endswith("bias"))


def gpt2_config() -> Any:
    return GPT2Config(vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=2)


def noisy(model: Any, which: Callable[[str], bool]) -> Any:
    """Trained, as far as a merge can tell."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if which(name):
                parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def adapted(model: Any, folder: Path, *, dtype: torch.dtype = torch.float32, **options: Any) -> Path:
    """Save `model` as the base and a trained adapter of it; returns the adapter's folder."""
    model.to(dtype).save_pretrained(folder / "base")
    with quiet():
        base = AutoModelForCausalLM.from_pretrained(folder / "base", dtype=dtype)
        wrapped = peft.get_peft_model(base, peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **options}))
        noisy(wrapped, lambda name: "lora_" in name or "modules_to_save" in name)
        if (bias := options.get("bias", "none")) != "none":
            noisy(wrapped, lambda name: name.endswith(".bias") and (bias == "all" or "base_layer" in name))
        wrapped.save_pretrained(folder / "adapter")
    return folder / "adapter"


def merged(adapter: Path) -> dict[str, torch.Tensor]:
    """What PEFT makes of it, in fp32."""
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(adapter.parent / "base", dtype=torch.float32)
        whole = peft.PeftModel.from_pretrained(model, adapter).merge_and_unload()
    return {name: tensor.clone() for name, tensor in whole.state_dict().items()}


@contextmanager
def captured(adapter: Path) -> Iterator[tuple[Base, VectorManifest, dict[str, np.ndarray], dict[str, Any]]]:
    """(base, manifest, {tensor: tau}, facts)"""
    packs = store(adapter.parent / "packs")
    with base_at(adapter.parent / "base") as base:
        manifest, facts = capture_adapter(adapter, base, packs, threads=1)
        with open_vector(manifest.id, base, packs) as vector:
            yield base, manifest, {name: vector.tau(name) for name in manifest.tensors}, facts


def agrees(
    adapter: Path, expected: dict[str, torch.Tensor] | None = None, rename: str = ""
) -> dict[str, Any]:
    """Every tensor of the base, plus tau, is PEFT's; returns the facts."""
    expected = merged(adapter) if expected is None else expected
    with captured(adapter) as (base, _, taus, facts):
        for name in base.manifest.tensors:
            wanted = expected[rename + name].numpy().astype(np.float64).reshape(-1)
            ours = base.f32(name).astype(np.float64) + taus.get(name, 0)
            assert np.linalg.norm(ours - wanted) <= CLOSE * np.linalg.norm(wanted), name
            assert np.abs(ours - wanted).max() <= CLOSE * np.abs(wanted).max(), name
            if name not in taus:
                assert torch.equal(
                    expected[rename + name].reshape(-1), torch.from_numpy(base.f32(name).copy())
                )
        assert taus
    return facts


def keys_of(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def edit(adapter: Path, **options: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    return adapter


# ------------------------------------------------------------------------------ what is understood

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
    from pv.vecstore.vector import reference_to

    packs = store(adapter.parent / "packs")
    with base_at(adapter.parent / "base") as base, open_vector(manifest.id, base, packs) as vector:
        yield lambda name, part: vector.pack.read(
            name, part, reference_to(base, name, manifest.tensors[name])
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


# ------------------------------------------------------------------------------------ tied embeddings


def test_an_embedding_that_is_the_head_too(tmp_path: Path) -> None:
    adapter = adapted(llama(tied=True), tmp_path, target_modules=["embed_tokens", "q_proj"])
    facts = agrees(adapter)
    assert facts["notes"] == [
        "the head moves with model.embed_tokens.weight: the base keeps both as one tensor"
    ]


def test_a_tied_pair_moves_once(tmp_path: Path) -> None:
    options = {"target_modules": ["embed_tokens", "q_proj"], "ensure_weight_tying": True}
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
    options = {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}
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


# ------------------------------------------------------------------------------------ names and shapes


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


def test_another_model(tmp_path: Path) -> None:
    adapter = adapted(
        GPT2LMHeadModel(gpt2_config()), tmp_path, target_modules=["c_attn"], fan_in_fan_out=True
    )
    llama().save_pretrained(tmp_path / "other")
    (tmp_path / "base").rename(tmp_path / "gpt2")
    (tmp_path / "other").rename(tmp_path / "base")
    with (
        pytest.raises(CheckpointRefused, match=r"'transformer\.h\.0\.attn\.c_attn'.*no such module"),
        captured(adapter),
    ):
        pass


def test_another_size(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    (tmp_path / "base").rename(tmp_path / "was")
    tiny_model(layers=2, hidden=32, tied=False).save_pretrained(tmp_path / "base")
    with pytest.raises(CheckpointRefused, match=r"does not fit.*\[24, 24\].*\[32, 32\]"), captured(adapter):
        pass


def test_another_vocabulary(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path / "base")
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        model.resize_token_embeddings(280)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        wrapped.save_pretrained(tmp_path / "adapter")
    adapter = tmp_path / "adapter"
    assert "base_model.model.lm_head.weight" in keys_of(adapter)
    with pytest.raises(CheckpointRefused, match=r"another vocabulary.*280.*272") as caught, captured(adapter):
        pass
    assert "resize_token_embeddings(280)" in (caught.value.hint or "")


def test_lora_bias_without_a_bias_in_the_base(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"], lora_bias=True)
    with pytest.raises(CheckpointRefused, match=r"q_proj\.bias"), captured(adapter):
        pass


# ----------------------------------------------------------------------------------- what is refused

REFUSED_OPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "alora": ({"alora_invocation_tokens": [1, 2]}, "aLoRA"),
    "arrow": ({"arrow_config": {"top_k": 2}}, "Arrow"),
    "replication": ({"layer_replication": [[0, 2], [1, 2]]}, "layer replication"),
    "parameters": ({"target_parameters": ["mlp.experts.down_proj"]}, "target_parameters"),
    "tokens": ({"trainable_token_indices": [1]}, "trainable tokens"),
    "qalora": ({"use_qalora": True}, "QA-LoRA"),
    "bdlora": ({"use_bdlora": {"nblocks": 2}}, "BD-LoRA"),
    "monteclora": ({"monteclora_config": {"num_samples": 2}}, "MonteCLoRA"),
    "velora": ({"velora_config": {"num_groups": 2}}, "VeLoRA"),
    "kasa": ({"kasa_config": {"beta": 1.0}}, "KaSA"),
    "megatron": ({"megatron_config": {"x": 1}}, "Megatron"),
    "pissa": ({"init_lora_weights": "pissa_niter_16"}, "PiSSA"),
    "corda": ({"init_lora_weights": "corda"}, "CorDA"),
    "olora": ({"init_lora_weights": "olora"}, "OLoRA"),
    "lora-ga": ({"init_lora_weights": "lora_ga"}, "LoRA-GA"),
    "loftq": ({"init_lora_weights": "loftq"}, "LoftQ"),
    "an unknown start": ({"init_lora_weights": "quantum"}, "quantum"),
    "an unknown option": ({"use_new_thing": True}, "use_new_thing"),
    "no magnitudes": ({"use_dora": True}, "magnitude"),
    "another rank": ({"r": 5}, "says 5"),
    **{
        kind: ({"peft_type": kind}, kind)
        for kind in (
            "IA3",
            "LOHA",
            "LOKR",
            "ADALORA",
            "OFT",
            "VERA",
            "PROMPT_TUNING",
            "PREFIX_TUNING",
            "P_TUNING",
        )
    },
    "no kind": ({"peft_type": None}, "None"),
}


@pytest.mark.parametrize(("options", "name"), REFUSED_OPTIONS.values(), ids=REFUSED_OPTIONS.keys())
def test_what_is_not_understood_is_refused_by_name(
    tmp_path: Path, options: dict[str, Any], name: str
) -> None:
    adapter = edit(adapted(llama(), tmp_path, target_modules=["q_proj"]), **options)
    with pytest.raises(CheckpointRefused, match=name) as caught, captured(adapter):
        pass
    assert caught.value.hint
    assert not [path for path in (tmp_path / "packs").rglob("*") if path.is_file()]


def test_a_prompt_has_no_weights(tmp_path: Path) -> None:
    adapter = edit(adapted(llama(), tmp_path, target_modules=["q_proj"]), peft_type="PROMPT_TUNING")
    with pytest.raises(CheckpointRefused) as caught, captured(adapter):
        pass
    assert "no task vector" in (caught.value.hint or "")


@pytest.mark.parametrize(
    "options",
    [
        {"r": 0}, {"r": True}, {"r": "4"}, {"lora_alpha": "x"}, {"lora_alpha": True}, {"use_rslora": 1},
        {"rank_pattern": []}, {"rank_pattern": {"q_proj": -1}}, {"alpha_pattern": {"q_proj": None}},
        {"rank_pattern": {"(": 4}},
    ],
    ids=str,
)  # fmt: skip
def test_a_malformed_configuration(tmp_path: Path, options: dict[str, Any]) -> None:
    adapter = edit(adapted(llama(), tmp_path, target_modules=["q_proj"]), **options)
    with pytest.raises(FormatError, match="adapter_config"), captured(adapter):
        pass


@pytest.mark.parametrize("pattern", ["(a*)*b", "(a|a)+$", r"(.*)\1", "(?=x)", "a*a*a*a*a*b", "x" * 600])
def test_a_pattern_that_could_take_for_ever(tmp_path: Path, pattern: str) -> None:
    adapter = edit(adapted(llama(), tmp_path, target_modules=["q_proj"]), rank_pattern={pattern: 4})
    with pytest.raises(CheckpointRefused, match="too intricate"), captured(adapter):
        pass


def test_strange_tensors_are_listed(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    keys = {**keys_of(adapter), f"base_model.model.{Q}.lora_diag": torch.ones(4)}
    save_file(keys, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointRefused, match="lora_diag"), captured(adapter):
        pass


def test_one_tensor_by_two_names(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"], modules_to_save=["lm_head"])
    keys = keys_of(adapter)
    head = keys["base_model.model.lm_head.weight"]
    save_file(
        {**keys, "base_model.model.lm_head.base_layer.weight": head + 1},
        adapter / "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointRefused, match="lm_head"), captured(adapter):
        pass
    twice = {
        key.replace("base_model.model.model.", "base_model.model."): tensor.clone()
        for key, tensor in keys.items()
        if "layers.0" in key
    }
    save_file({**keys, **twice}, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointRefused, match=r"'layers\.0\.self_attn\.q_proj'"), captured(adapter):
        pass


def test_half_a_pair(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    keys = {key: tensor for key, tensor in keys_of(adapter).items() if "lora_A" in key}
    save_file(keys, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointRefused, match="some of its factors"), captured(adapter):
        pass


def test_undefined_numbers(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    keys = keys_of(adapter)
    keys[f"base_model.model.{Q}.lora_B.weight"][0, 0] = torch.nan
    save_file(keys, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointRefused, match="infinite or undefined"), captured(adapter):
        pass


def test_an_adapter_that_says_nothing(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    own = load_file(tmp_path / "base" / "model.safetensors")["lm_head.weight"]
    save_file({"base_model.model.lm_head.weight": own}, adapter / "adapter_model.safetensors")
    with pytest.raises(UsageError, match="nothing to commit"), captured(adapter):
        pass


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(CheckpointRefused, match="pickle") as caught, captured(adapter):
        pass
    assert "safetensors" in (caught.value.hint or "")


def test_missing_files(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(NotFoundError, match="adapter_model"), captured(adapter):
        pass
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(NotFoundError, match="adapter_config"), captured(adapter):
        pass


def test_which_folders_are_adapters(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    assert is_adapter(adapter)
    assert is_adapter(adapter / "adapter_model.safetensors")
    assert not is_adapter(tmp_path / "base")
    assert not is_adapter(tmp_path / "nowhere")
    with safe_open(tmp_path / "base" / "model.safetensors", "pt") as file:
        save_file({"x": file.get_tensor("lm_head.weight")}, adapter / "model.safetensors")
    with pytest.raises(CheckpointRefused, match="both a checkpoint and an adapter"):
        is_adapter(adapter)
    assert is_adapter(adapter / "adapter_model.safetensors")


def test_a_truncated_file(tmp_path: Path) -> None:
    adapter = adapted(llama(), tmp_path, target_modules=["q_proj"])
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PvError, match="truncated"), captured(adapter):
        pass
