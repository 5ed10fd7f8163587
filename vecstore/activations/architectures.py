"""Where an architecture's blocks add to the residual stream, and whether a bias there does what a direction does.

A bias of the projection that ends an MLP or attention is added to the stream just as a direction at the block's output
is, if nothing lies between: no norm, no scale, no router. So each entry was read in transformers' source, and is held
against the model itself in tests/vecstore/activations/test_bake.py. What is in no table is not baked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Family", "Part", "family_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """A block's MLP, or its attention. Names are those in the block.

    modules   those whose output is the projection's, besides the projection itself
    out       the projection that ends it
    flag      what in config.json gives biases to the projections `of_flag`; None: nothing does
    """

    modules: tuple[str, ...]
    out: str
    flag: str | None = None
    of_flag: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Family:
    """`blocks`: the list of decoder layers. `transposed`: weights are (in, out), as GPT-2's are."""

    blocks: str
    mlp: Part
    attention: Part
    transposed: bool = False


def _named(prefix: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{prefix}.{name}" for name in names)


_QKVO = _named("self_attn", "q_proj", "k_proj", "v_proj", "o_proj")
_GATED = _named("mlp", "gate_proj", "up_proj", "down_proj")
_LLAMA_ATTENTION = Part(("self_attn",), "self_attn.o_proj", "attention_bias", _QKVO)
_FALCON = (
    *_named("self_attention", "query_key_value", "dense"),
    *_named("mlp", "dense_h_to_4h", "dense_4h_to_h"),
)
_STARCODER = (*_QKVO, *_named("mlp", "c_fc", "c_proj"))

FAMILIES: Mapping[str, Family] = {
    "llama": Family("model.layers", Part(("mlp",), "mlp.down_proj", "mlp_bias", _GATED), _LLAMA_ATTENTION),
    # The config has a bias for attention alone.
    "gemma": Family("model.layers", Part(("mlp",), "mlp.down_proj"), _LLAMA_ATTENTION),
    "qwen3": Family("model.layers", Part(("mlp",), "mlp.down_proj"), _LLAMA_ATTENTION),
    # The projections have biases.
    "gpt2": Family("transformer.h", Part(("mlp",), "mlp.c_proj"), Part(("attn",), "attn.c_proj"), True),
    "gpt_bigcode": Family("transformer.h", Part(("mlp",), "mlp.c_proj"), Part(("attn",), "attn.c_proj")),
    "gpt_neo": Family(
        "transformer.h",
        Part(("mlp",), "mlp.c_proj"),
        Part(("attn", "attn.attention"), "attn.attention.out_proj"),
    ),
    "opt": Family("model.decoder.layers", Part((), "fc2"), Part(("self_attn",), "self_attn.out_proj")),
    "bloom": Family(
        "transformer.h",
        Part(("mlp",), "mlp.dense_4h_to_h"),
        Part(("self_attention",), "self_attention.dense"),
    ),
    # MLP and attention side by side: both add to the stream, at the block's end.
    "gptj": Family("transformer.h", Part(("mlp",), "mlp.fc_out"), Part(("attn",), "attn.out_proj")),
    "codegen": Family("transformer.h", Part(("mlp",), "mlp.fc_out"), Part(("attn",), "attn.out_proj")),
    "phi": Family("model.layers", Part(("mlp",), "mlp.fc2"), Part(("self_attn",), "self_attn.dense")),
    "gpt_neox": Family(
        "gpt_neox.layers",
        Part(("mlp",), "mlp.dense_4h_to_h"),
        Part(
            ("attention",),
            "attention.dense",
            "attention_bias",
            _named("attention", "query_key_value", "dense"),
        ),
    ),
    # One flag for all projections.
    "falcon": Family(
        "transformer.h",
        Part(("mlp",), "mlp.dense_4h_to_h", "bias", _FALCON),
        Part(("self_attention",), "self_attention.dense", "bias", _FALCON),
    ),
    "starcoder2": Family(
        "model.layers",
        Part(("mlp",), "mlp.c_proj", "use_bias", _STARCODER),
        Part(("self_attn",), "self_attn.o_proj", "use_bias", _STARCODER),
    ),
}

_NORM = "a norm follows what its blocks add"
_NO_BIAS = "its projections have no bias, and its config offers none"
_SCALED = "what its blocks add is scaled first"
REFUSED: Mapping[str, str] = {
    **dict.fromkeys(("gemma2", "gemma3", "gemma3_text", "gemma3n_text", "olmo2", "olmo3", "glm4"), _NORM),
    **dict.fromkeys(("qwen2", "mistral", "phi3", "stablelm", "cohere", "smollm3", "ministral"), _NO_BIAS),
    **dict.fromkeys(("granite", "minicpm"), _SCALED),
}
"""Why not, of those that people will ask about."""

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_intermediate_size")


def family_of(config: Mapping[str, Any]) -> Family | str:
    """The entry of what config.json describes; or, in words, why nothing can be baked into it."""
    kind = config.get("model_type")
    if any(config.get(key) for key in _EXPERTS):
        return "its MLP is a mixture of experts"
    if isinstance(kind, str) and kind in REFUSED:
        return REFUSED[kind]
    if not isinstance(kind, str) or kind not in FAMILIES:
        return f"pv has not been told where a {str(kind)[:40]} has biases"
    if config.get("auto_map"):
        return "its code is its own, and not that of transformers"
    if config.get("quantization_config"):
        return "its weights are quantized"
    if isinstance(tp := config.get("pretraining_tp"), int) and tp > 1:
        return "with pretraining_tp above 1, loaders add up slices of a projection without its bias"
    if kind == "opt" and config.get("do_layer_norm_before") is False:
        return _NORM
    return FAMILIES[kind]
