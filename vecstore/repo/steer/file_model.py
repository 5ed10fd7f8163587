"""What files of steering vectors must know of the model, from what the registry keeps of the base: no weights."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.vecstore.activations.formats.values import Model
from pv.vecstore.activations.sites import blocks
from pv.vecstore.models.skeleton import skeleton

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pv.registry.registry import Registry

__all__ = ["in_order", "model_of", "skeleton_of"]


def skeleton_of(registry: Registry, commit: str) -> PreTrainedModel | None:
    """The modules of the base; None where the registry has no config of it that transformers knows."""
    config = registry.base_files(commit).get("config.json")
    return skeleton(config, most=len(registry.base(commit).tensors))


def model_of(base: str, modules: PreTrainedModel | None) -> Model:
    """Of a base that transformers does not know: no blocks, and nothing to check widths by."""
    if modules is None:
        return Model((), base=base)
    text = modules.config.get_text_config()
    try:
        names = tuple(blocks(modules))
    except UsageError:
        names = ()
    width = getattr(text, "hidden_size", None)
    return Model(names, width if isinstance(width, int) else None, str(modules.config.model_type), base)


def in_order(sites: Iterable[str]) -> tuple[str, ...]:
    """Sites as layers are counted: model.layers.2 before model.layers.10."""

    def key(site: str) -> list[str | int]:
        return [int(part) if at % 2 else part for at, part in enumerate(re.split("([0-9]+)", site))]

    return tuple(sorted(sites, key=key))
