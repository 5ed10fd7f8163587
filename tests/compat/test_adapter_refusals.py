"""Adapters that are refused, by name and before anything is stored: another model's, or not understood."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.adapters import Q, adapted, captured, gpt2_config, keys_of, llama, quiet
from support.tiny import tiny_model

from pv.registry.errors import CheckpointRefused, FormatError, NotFoundError, PvError, UsageError
from pv.vecstore.vectors.adapters.file import is_adapter

with quiet():
    import peft
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file
    from transformers import AutoModelForCausalLM, GPT2LMHeadModel

pytestmark = pytest.mark.usefixtures("same_numbers")


def edit(adapter: Path, **options: Any) -> Path:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **options}))
    return adapter


# --------------------------------------------------------------------------------- of another model


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


# ----------------------------------------------------------------------------------- not understood

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
