"""The modules of a model, by its config alone: their names and shapes, without one number of its weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.vecstore.models.load import quiet

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["skeleton"]


def skeleton(config: bytes | None, most: int) -> PreTrainedModel | None:
    """The model that `load` would make, on torch's meta device: config.json is read, and no code from a checkpoint.

    None where transformers makes no model of it, or it has more than `most` layers, of which each is a module.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if config is None or not _is_small(config, most):
        return None
    try:
        with quiet(), _folder(config) as folder, torch.device("meta"):
            found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(found, trust_remote_code=False)
    except (ValueError, KeyError, TypeError, OSError, RuntimeError, ImportError, AttributeError):
        return None
    return model.eval()


@contextmanager
def _folder(config: bytes) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pv-config-") as folder:
        (Path(folder) / "config.json").write_bytes(config)
        yield Path(folder)


def _is_small(config: bytes, most: int) -> bool:
    """Whether no count of layers, heads or experts in it is above `most`: a stranger may have written any number."""
    try:
        document = json.loads(config)
    except (ValueError, RecursionError):
        return False
    return isinstance(document, dict) and all(
        not isinstance(value, int) or value <= most
        for key, value in _pairs(document)
        if "layers" in key or "experts" in key
    )


def _pairs(document: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _pairs(value)
        else:
            yield key, value
