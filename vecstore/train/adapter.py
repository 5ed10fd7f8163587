"""Adapters instead of all weights: for who has no memory for a full fine-tune. peft makes them, trains and writes them.

    lora:R     W + s B A,                   s = 2                 (Hu et al., ICLR 2022)
    rslora:R   the same,                    s = 8 / sqrt(R): the step is as large at every rank   (arXiv:2312.03732)
    dora:R     m (W + s B A) / |W + s B A|, s = 2                 (Liu et al., ICML 2024)

On every linear layer but the head. A starts at random from the run's seed, B at zero.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.vecstore.models.load import quiet
from pv.vecstore.train.options import adapter_kind

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

__all__ = ["adapter_files", "adapter_shapes", "add_adapter"]


def add_adapter(model: PreTrainedModel, adapter: str) -> tuple[PeftModel, dict[str, torch.nn.Parameter]]:
    """The model with an adapter in it, and what of it is trained, by name. Nothing else is."""
    from peft import LoraConfig, get_peft_model

    kind, rank = adapter_kind(adapter)
    model.requires_grad_(False)
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=rank,
        lora_alpha=8 if kind == "rslora" else 2 * rank,
        use_rslora=kind == "rslora",
        use_dora=kind == "dora",
        target_modules="all-linear",
    )
    try:
        with quiet():
            wrapped = get_peft_model(model, config)
    except ValueError as error:
        raise UsageError(
            f"peft cannot put {adapter} into this model: {error}", hint="train all weights"
        ) from error
    return wrapped, {name: p for name, p in wrapped.named_parameters() if p.requires_grad}


def adapter_files(wrapped: PeftModel, base_name: str) -> Mapping[str, bytes]:
    """What peft saves: adapter_config.json and adapter_model.safetensors."""
    for config in wrapped.peft_config.values():
        config.base_model_name_or_path = base_name
    with tempfile.TemporaryDirectory() as folder:
        wrapped.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False)
        return {path.name: path.read_bytes() for path in Path(folder).glob("adapter_*")}


def adapter_shapes(shapes: Mapping[str, tuple[int, ...]], adapter: str) -> list[tuple[int, ...]]:
    """Of what is trained, as far as it can be told before there is a model."""
    kind, rank = adapter_kind(adapter)
    found: list[tuple[int, ...]] = []
    for shape in shapes.values():
        if len(shape) == 2:
            found += [(rank, shape[1]), (shape[0], rank), *([(shape[0],)] if kind == "dora" else [])]
    return found
