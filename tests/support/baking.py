"""Tiny random models of the architectures that steering can be baked into, and a registry that steers one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry.provenance import Imported
from pv.registry.registry import Registry
from pv.registry.steering import SteeringTerm
from pv.vecstore.repo.init import init
from pv.vecstore.repo.repo import Repo
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import write_steering

__all__ = ["BAKED", "direction", "loaded", "logits", "new_repo", "steer", "tiny_baked"]

VOCAB, WIDE = 64, 32
_IDS: dict[str, Any] = {"vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_GPT: dict[str, Any] = {**_IDS, "n_embd": WIDE, "n_layer": 2, "n_head": 4, "n_positions": 64}
_NEW: dict[str, Any] = {
    **_IDS, "hidden_size": WIDE, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
_NEOX: dict[str, Any] = {**_NEW, "num_key_value_heads": None, "attention_bias": True}
_OPT: dict[str, Any] = {
    **_IDS, "hidden_size": WIDE, "word_embed_proj_dim": WIDE, "ffn_dim": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "max_position_embeddings": 64,
}  # fmt: skip
_FALCON: dict[str, Any] = {**_IDS, "hidden_size": WIDE, "num_hidden_layers": 2, "num_attention_heads": 4}

# model_type: config, attention's output projection, MLP's ("" where no bias is offered there)
BAKED: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "llama": ("Llama", _NEW, "self_attn.o_proj", "mlp.down_proj"),
    "llama with biases": (
        "Llama", {**_NEW, "mlp_bias": True, "attention_bias": True}, "self_attn.o_proj", "mlp.down_proj",
    ),
    "gemma": ("Gemma", {**_NEW, "head_dim": 8}, "self_attn.o_proj", ""),
    "qwen3": ("Qwen3", {**_NEW, "head_dim": 8}, "self_attn.o_proj", ""),
    "gpt2": ("GPT2", _GPT, "attn.c_proj", "mlp.c_proj"),
    "gpt_bigcode": ("GPTBigCode", _GPT, "attn.c_proj", "mlp.c_proj"),
    "gpt_neo": (
        "GPTNeo",
        {**_IDS, "hidden_size": WIDE, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 64,
         "attention_types": [[["global", "local"], 1]], "window_size": 8},
        "attn.attention.out_proj", "mlp.c_proj",
    ),
    "opt": ("OPT", _OPT, "self_attn.out_proj", "fc2"),
    "bloom": ("Bloom", {**_IDS, "hidden_size": WIDE, "n_layer": 2, "n_head": 4}, "self_attention.dense",
              "mlp.dense_4h_to_h"),
    "gptj": ("GPTJ", {**_GPT, "rotary_dim": 4}, "", "mlp.fc_out"),
    "codegen": ("CodeGen", {**_GPT, "rotary_dim": 4}, "", "mlp.fc_out"),
    "phi": ("Phi", {**_NEW, "num_key_value_heads": None}, "self_attn.dense", "mlp.fc2"),
    "gpt_neox": ("GPTNeoX", _NEOX, "attention.dense", "mlp.dense_4h_to_h"),
    "gpt_neox in sequence": ("GPTNeoX", {**_NEOX, "use_parallel_residual": False}, "attention.dense",
                             "mlp.dense_4h_to_h"),
    "gpt_neox without biases": ("GPTNeoX", {**_NEOX, "attention_bias": False}, "attention.dense",
                                "mlp.dense_4h_to_h"),
    "falcon": ("Falcon", _FALCON, "self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon in sequence": ("Falcon", {**_FALCON, "parallel_attn": False, "bias": True, "alibi": True,
                                      "multi_query": False}, "self_attention.dense", "mlp.dense_4h_to_h"),
    "falcon of two norms": ("Falcon", {**_FALCON, "new_decoder_architecture": True, "num_kv_heads": 2},
                            "self_attention.dense", "mlp.dense_4h_to_h"),
    "starcoder2": ("Starcoder2", _NEW, "self_attn.o_proj", "mlp.c_proj"),
    "starcoder2 without biases": ("Starcoder2", {**_NEW, "use_bias": False}, "self_attn.o_proj", "mlp.c_proj"),
}  # fmt: skip


def tiny_baked(name: str) -> Any:
    """In float32, every parameter random, those of norms and biases too. Global RNG state is kept."""
    import torch
    import transformers

    kind, values = BAKED[name][:2]
    config = getattr(transformers, f"{kind}Config")(**values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    return model.eval()


def direction(size: int, seed: int = 0) -> F32:
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


@contextmanager
def new_repo(folder: Path, base: Path) -> Iterator[Repo]:
    """A registry on the base, without a behaviour."""
    init(folder, base, threads=1)
    with Repo.open(folder) as repo:
        yield repo


def steer(
    registry: Registry, name: str, directions: Mapping[str, F32], coefficient: float = 1.0, **values: Any
) -> None:
    """Commit a steering term of these directions."""
    manifest = write_steering(directions, registry.base().id, registry.packs)
    term = SteeringTerm(coefficient, manifest.id, **values)
    registry.change(
        f"steer {name}",
        f"Steer {name}",
        lambda persona: persona.with_steering(name, term),
        vectors={manifest.id: (manifest, Imported("test", f"{name}.gguf"))},
    )


def loaded(folder: Path) -> Any:
    """As stock transformers loads it in float32: no tensor that it misses, none that it does not expect."""
    import torch
    from transformers import AutoModelForCausalLM

    model, said = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not said["missing_keys"] and not said["unexpected_keys"] and not said["mismatched_keys"], said
    return model.eval()


def logits(model: Any) -> Any:
    """(2, 9, vocabulary), of fixed tokens."""
    import torch

    ids = torch.arange(18).reshape(2, 9) * 7 % VOCAB
    with torch.no_grad():
        return model(input_ids=ids).logits
