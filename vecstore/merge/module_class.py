"""What kind of module a tensor belongs to, read from its name."""

from __future__ import annotations

import re

from pv.vecstore.checkpoints.names import is_head, is_vocabulary

__all__ = ["CLASSES", "module_class"]

CLASSES = ("embeddings", "attention", "mlp", "norms", "head", "other")
"""In the order in which a model applies them, mostly."""

_POSITIONS = re.compile(r"(.*\.)?(wpe|embed_positions|position_embeddings?|token_type_embeddings)\.weight")
_NORM = re.compile(r"(.*[._])?(norm|layernorm|ln)(_?[a-z0-9]{1,3}|_?(final|emb))?", re.IGNORECASE)
_ATTENTION = re.compile(r".*(attn|attention|[qkvo]_proj|qkv_proj|query_key_value)\b.*")
_MLP = re.compile(
    r".*(mlp|ffn|feed_forward|experts?|moe|(gate|up|down|gate_up)_proj|fc[12]|intermediate|output)\b.*"
)


def module_class(name: str) -> str:
    """One of CLASSES: "model.layers.3.self_attn.q_norm.weight" is norms, ".self_attn.q_proj.weight" attention."""
    stem = name.removesuffix(".weight").removesuffix(".bias")
    if is_head(name):
        return "head"
    if is_vocabulary(name) or _POSITIONS.fullmatch(name):
        return "embeddings"
    if _NORM.fullmatch(stem.rpartition(".")[2]):
        return "norms"
    if _ATTENTION.match(stem):
        return "attention"
    return "mlp" if _MLP.match(stem) else "other"
