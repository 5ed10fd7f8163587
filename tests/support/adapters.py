"""Tiny models, adapters of them that PEFT makes and trains, what PEFT merges, and what pv captures.

`from support.adapters import adapted, agrees, captured, llama`. Only with the fixture `same_numbers` do the same
arguments give the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pv.registry.manifest import VectorManifest
from pv.vecstore.vectors.adapters.capture import capture_adapter
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import open_vector
from support.tiny import tiny_model
from support.vectors import base_at, store

__all__ = [
    "Model",
    "Q",
    "adapted",
    "agrees",
    "captured",
    "gpt2_config",
    "keys_of",
    "llama",
    "llama_with_biases",
    "merged",
    "noisy",
    "quiet",
]

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
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, LlamaForCausalLM


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
            ours = base.tensor(name).f32.astype(np.float64) + taus.get(name, 0)
            assert np.linalg.norm(ours - wanted) <= CLOSE * np.linalg.norm(wanted), name
            assert np.abs(ours - wanted).max() <= CLOSE * np.abs(wanted).max(), name
            if name not in taus:
                assert torch.equal(
                    expected[rename + name].reshape(-1), torch.from_numpy(base.tensor(name).f32.copy())
                )
        assert taus
    return facts


def keys_of(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")
