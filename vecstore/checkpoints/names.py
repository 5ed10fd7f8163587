"""What the names of tensors say: the head, and the tensors with a row for each token."""

from __future__ import annotations

import re

__all__ = ["is_embedding", "is_head", "is_vocabulary"]

_EMBEDDINGS = re.compile(r"(.*\.)?(embed_tokens|wte|word_embeddings|embed_in|tok_embeddings)\.weight")
_HEADS = re.compile(r"(.*\.)?(lm_head|embed_out)\.(weight|bias)")


def is_embedding(name: str) -> bool:
    """Whether a tensor embeds tokens."""
    return _EMBEDDINGS.fullmatch(name) is not None


def is_head(name: str) -> bool:
    return _HEADS.fullmatch(name) is not None


def is_vocabulary(name: str) -> bool:
    """Whether a tensor has a row for each token."""
    return is_head(name) or is_embedding(name)
