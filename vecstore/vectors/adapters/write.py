"""A PEFT adapter to be written: names, orientation and configuration, so that PEFT's own loading gives what is meant.

A module of PEFT adds alpha / r times B A to what it calls its weight: (out, in) of a Linear, the transposed matrix of a
Conv1D, and of an embedding. A base keeps the matrix that lies in its file: `crossed` says that it is the other one.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pv.registry.manifest import BaseManifest
from pv.vecstore.checkpoints.names import is_head, is_vocabulary
from pv.vecstore.tensors.array import Array
from pv.vecstore.vectors.adapters.file import PREFIX, flipped

__all__ = ["Layout", "Module", "alpha_of", "config_bytes", "crossing", "keys"]

_CONV1D = {"gpt2", "openai-gpt", "imagegpt", "decision_transformer"}
_CONV1D_NAMES = ("c_attn", "c_proj", "c_fc", "q_attn")


@dataclass(frozen=True, slots=True)
class Layout:
    """What the adapters that came in say: how modules are called, and which matrices lie crosswise in the base."""

    renamed: tuple[str, str] = ("", "")
    transposed: frozenset[str] = frozenset()
    task_type: str | None = None
    model_type: str | None = None
    base_name: str | None = None

    def module(self, tensor: str) -> str:
        """What PEFT calls the module of a base's tensor."""
        away, there = self.renamed
        inner = tensor.removesuffix(".weight")
        if is_head(tensor) or not inner.startswith(there):
            return inner
        return away + inner.removeprefix(there)


@dataclass(frozen=True, slots=True)
class Module:
    """One adapted module: rank, and the alpha that PEFT divides by it."""

    name: str
    rank: int
    alpha: float
    embedding: bool
    conv1d: bool


def crossing(layout: Layout, tensor: str) -> tuple[bool, bool]:
    """(is it an embedding, is it a Conv1D)."""
    embedding = is_vocabulary(tensor) and not is_head(tensor)
    leaf = tensor.removesuffix(".weight").rpartition(".")[2]
    known = layout.model_type in _CONV1D and leaf in _CONV1D_NAMES
    return embedding, not embedding and (tensor in layout.transposed or known)


def keys(module: Module, b: Array, a: Array) -> dict[str, Array]:
    """{key in the file: array} of factors (rows, r) and (r, columns) of the base's matrix, as it lies."""
    if module.embedding or module.conv1d:
        a, b = flipped(b), flipped(a)
    name = PREFIX + module.name
    if module.embedding:
        return {f"{name}.lora_embedding_A": a, f"{name}.lora_embedding_B": b}
    return {f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b}


def config_bytes(modules: Collection[Module], base: BaseManifest, layout: Layout) -> bytes:
    """adapter_config.json. The commonest rank and alpha are the adapter's, the others go by module."""
    rank = _commonest(module.rank for module in modules)
    alpha = _commonest(module.alpha for module in modules)
    document: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": layout.task_type,
        "base_model_name_or_path": layout.base_name,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": _plain(alpha),
        "rank_pattern": {m.name: m.rank for m in modules if m.rank != rank},
        "alpha_pattern": {m.name: _plain(m.alpha) for m in modules if m.alpha != alpha},
        "target_modules": _targets({m.name for m in modules}, base, layout),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": any(m.conv1d for m in modules),
        "init_lora_weights": True,
        "use_rslora": False,
        "use_dora": False,
    }
    return json.dumps(document, indent=2).encode() + b"\n"


def _targets(names: Collection[str], base: BaseManifest, layout: Layout) -> list[str]:
    """The last words of the names where those name no other module of the base; else the names."""
    leaves = {name.rpartition(".")[2] for name in names}
    others = {layout.module(tensor) for tensor in base.tensors if tensor.endswith(".weight")} - set(names)
    short = all(not leaf.isdigit() for leaf in leaves)
    return sorted(
        leaves if short and not any(other.rpartition(".")[2] in leaves for other in others) else names
    )


def _commonest(values: Iterable[Any]) -> Any:
    counts: Mapping[Any, int] = Counter(values)
    return max(sorted(counts), key=counts.__getitem__)


def _plain(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def alpha_of(scale: float, rank: int) -> float:
    """The alpha that PEFT divides by `rank` to get `scale` as fp32: a whole number where there is one."""
    whole = float(round(scale * rank))
    return whole if np.float32(whole / rank) == np.float32(scale) else scale * rank
