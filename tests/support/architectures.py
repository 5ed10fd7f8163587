"""Tiny random models of the architectures that people train."""

from __future__ import annotations

from typing import Any

__all__ = ["ARCHITECTURES", "HYBRIDS", "tiny_architecture"]

COMMON: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 128, "initializer_range": 0.3, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
LINEAR: dict[str, Any] = {
    "num_hidden_layers": 4, "head_dim": 8, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
    "linear_key_head_dim": 8, "linear_value_head_dim": 8, "linear_conv_kernel_dim": 4, "partial_rotary_factor": 0.5,
}  # fmt: skip
EXPERTS: dict[str, Any] = {
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16,
    "decoder_sparse_step": 1,
}  # fmt: skip

ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "qwen2": ("Qwen2", {}),
    "qwen3": ("Qwen3", {"head_dim": 8}),
    "gemma": ("Gemma", {"head_dim": 8}),
    "gemma2": ("Gemma2", {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3Text", {"head_dim": 8, "sliding_window": 6, "query_pre_attn_scalar": 8}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-sliding": ("Mistral", {"sliding_window": 5}),
    "phi3": ("Phi3", {}),
    "olmo2": ("Olmo2", {}),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen3-moe": ("Qwen3Moe", {"head_dim": 8, **EXPERTS}),
    "qwen3-next": ("Qwen3Next", {**LINEAR, **EXPERTS}),
    "qwen3.5": ("Qwen3_5Text", LINEAR),
}
HYBRIDS = ("qwen3-next", "qwen3.5")


def tiny_architecture(name: str, seed: int = 0, *, double: bool = False) -> Any:
    """In float32, or all of it in float64. Global RNG state is kept."""
    import torch
    import transformers

    kind, more = ARCHITECTURES[name]
    config = getattr(transformers, f"{kind}Config")(**{**COMMON, **more})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = transformers.AutoModelForCausalLM.from_config(config)
        if double:
            model = _in_double(type(model))(config)
        with torch.no_grad():
            for p in model.parameters():  # norms and the like too: nothing is at a special point
                p += 0.1 * torch.randn_like(p)
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the others have no float64
    return model.double() if double else model


def _in_double(model: type) -> Any:
    """The same class, from transformers' own source with every float32 in it made float64: some layers insist."""
    import inspect
    import sys
    from types import ModuleType

    name = f"{model.__module__}_in_double"
    if name not in sys.modules:
        source = inspect.getsource(sys.modules[model.__module__])
        source = source.replace("torch.float32", "torch.float64").replace(".float()", ".double()")
        module = sys.modules[name] = ModuleType(name)
        module.__package__ = model.__module__.rpartition(".")[0]
        module.__file__ = sys.modules[model.__module__].__file__
        exec(compile(source, name, "exec"), vars(module))
    return getattr(sys.modules[name], model.__name__)
