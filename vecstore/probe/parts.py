"""The parts of a model that a probe tells apart: its heads, the keys and values that heads share, MLPs, and the rest.

Together they are a partition of the parameters: every element is in exactly one part, so what they carry can be added
up. Head h of a layer has its rows of q and its columns of o; k and v belong to a group of heads (with grouped-query
attention several heads read the same ones), so they are parts of their own. What all heads of a layer share, as the
norms of q and k do or the bias of o, is in the layer's rest.

The ways in which q, k and v are laid out were read in transformers' source, and are held against the models themselves
in tests/vecstore/probe/test_parts.py. Attention that is laid out in another way is one part, and said so in `notes`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import blocks
from pv.vecstore.merge.module_class import module_class

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["KINDS", "PROJECTIONS", "Attention", "Kind", "Part", "Parts", "Slice", "parts_of"]

Kind = Literal["head", "kv", "mlp", "linear-attention", "experts", "rest"]
KINDS: tuple[Kind, ...] = ("head", "kv", "mlp", "linear-attention", "experts", "rest")
PROJECTIONS = ("q", "k", "v", "o", "mlp", "linear-attention", "experts", "rest")

_EXPERTS = re.compile(r"(^|\.)(experts?|shared_experts?|block_sparse_moe|moe)(\.|$)")
_LINEAR = re.compile(r"(^|\.)linear_attn\.")
_MIXER = re.compile(r"(^|\.)(mixer|mamba|ssm|conv|temporal_block|recurrent)\.")
_OUT = ("o_proj", "out_proj", "dense", "c_proj")
Seen = Mapping[str, "nn.Parameter"]


@dataclass(frozen=True, slots=True)
class Slice:
    """Elements of one parameter: `start` to `stop` along `dim`, or all of it where `dim` is None.

    `projection` is one of PROJECTIONS: what shares by projection count it as.
    """

    name: str
    projection: str
    dim: int | None = None
    start: int = 0
    stop: int = 0

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view of these elements."""
        return tensor if self.dim is None else tensor.narrow(self.dim, self.start, self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Part:
    """`index` counts from 0 within the layer; `group` is the key/value group of a head. Neither layer nor index: what
    is outside the layers."""

    kind: Kind
    layer: int | None
    index: int | None
    group: int | None
    slices: tuple[Slice, ...]

    @property
    def key(self) -> str:
        """ "3.head.5": no other part of the model has it."""
        return ".".join(str(one) for one in (self.layer, self.kind, self.index) if one is not None)


@dataclass(frozen=True, slots=True)
class Attention:
    """A layer's heads: what goes into the module `out` is what they give, side by side."""

    layer: int
    module: str
    out: str
    heads: int
    groups: int

    def group_of(self, head: int) -> int:
        return head * self.groups // self.heads


@dataclass(frozen=True, slots=True)
class Parts:
    """All parts of a model, by layer; `notes` names the layers that have no heads, and why."""

    parts: tuple[Part, ...]
    attention: tuple[Attention, ...]
    layers: int
    linear: Mapping[int, str]  # the modules of linear attention, by layer
    notes: tuple[str, ...] = ()

    def of(self, *kinds: Kind) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if part.kind in kinds)

    @property
    def heads(self) -> tuple[Part, ...]:
        return self.of("head")

    def with_groups(self, heads: Iterable[Part]) -> tuple[Part, ...]:
        """These heads, and the keys and values that they read."""
        chosen = set(heads)
        read = {(part.layer, part.group) for part in chosen}
        return tuple(
            part
            for part in self.parts
            if part in chosen or (part.kind == "kv" and (part.layer, part.index) in read)
        )

    def but(self, left_out: Iterable[Part]) -> tuple[Part, ...]:
        """All other parts."""
        out = set(left_out)
        return tuple(part for part in self.parts if part not in out)


def parts_of(model: nn.Module) -> Parts:
    """Raises UsageError for a model in which no head is found."""
    parameters = dict(model.named_parameters())
    names = blocks(model)
    parts: list[Part] = []
    attention: list[Attention] = []
    without: dict[str, list[int]] = {}
    linear: dict[int, str] = {}
    outside = dict(parameters)
    for layer, block in enumerate(names):
        own = {name: outside.pop(name) for name in parameters if name.startswith(f"{block}.")}
        found = _attention(model, block, layer, own)
        if found is not None:
            attention.append(found[0])
            parts += found[1]
        else:
            without.setdefault(_why_no_heads(own), []).append(layer)
        if any(name.startswith(f"{block}.linear_attn.") for name in own):
            linear[layer] = f"{block}.linear_attn"
        taken = {one.name for part in parts if part.layer == layer for one in part.slices}
        parts += _others(layer, {name: own[name] for name in own if name not in taken})
    if not attention:
        raise UsageError(
            "no attention heads found in this model: " + "; ".join(without or ("it has no layers",)),
            hint="`pv probe neurons` and `pv probe concept` need none",
        )
    if outside:
        parts.append(Part("rest", None, None, None, tuple(Slice(name, "rest") for name in outside)))
    notes = tuple(f"{_numbers(layers)}: {why}" for why, layers in without.items())
    return Parts(tuple(parts), tuple(attention), len(names), linear, notes)


def _others(layer: int, own: Seen) -> Iterator[Part]:
    """What is no head and no keys and values: MLP or experts, linear attention, and the rest of the layer."""
    linear = [name for name in own if _LINEAR.search(name)]
    mlp = [name for name in own if name not in linear and module_class(name) == "mlp"]
    kind: Kind = "experts" if any(_EXPERTS.search(name) for name in mlp) else "mlp"
    rest = [name for name in own if name not in linear and name not in mlp]
    several: tuple[tuple[Kind, list[str]], ...] = ((kind, mlp), ("linear-attention", linear), ("rest", rest))
    for of, names in several:
        if names:
            yield Part(of, layer, None, None, tuple(Slice(name, of) for name in names))


def _why_no_heads(own: Seen) -> str:
    if any(_LINEAR.search(name) for name in own):
        return "linear attention (Gated DeltaNet), one part a layer; it has no heads with patterns"
    if any(_MIXER.search(name) for name in own):
        return "a recurrent or convolutional mixer, counted to the rest; it has no heads"
    if any(module_class(name) == "attention" for name in own):
        return "attention that is laid out in a way unknown to pv, counted to the rest"
    return "no attention"


def _attention(model: nn.Module, block: str, layer: int, own: Seen) -> tuple[Attention, list[Part]] | None:
    """A layer's heads, and its key/value groups; None where it has none that are understood."""
    layouts = (_separate, _fused, _interleaved, _transposed)
    for name, module in model.get_submodule(block).named_modules():
        if _LINEAR.search(f"{name}.") or not re.search(r"att(n|ention)$", name):
            continue
        path = f"{block}.{name}"
        out = next((end for end in _OUT if f"{path}.{end}.weight" in own), None)
        counts = _counts(model, module)
        if out is None or counts is None:
            continue
        for layout in layouts:
            slices = layout(path, f"{path}.{out}.weight", own, *counts)
            if slices is not None and _is_even(slices, own):
                at = Attention(layer, path, f"{path}.{out}", *counts)
                return at, _parts(at, slices)
    return None


def _parts(at: Attention, slices: Mapping[str, list[tuple[Slice, ...]]]) -> list[Part]:
    heads = [
        Part("head", at.layer, h, at.group_of(h), slices["q"][h] + slices["o"][h]) for h in range(at.heads)
    ]
    groups = [Part("kv", at.layer, g, None, slices["k"][g] + slices["v"][g]) for g in range(at.groups)]
    return heads + groups


def _counts(model: nn.Module, module: nn.Module) -> tuple[int, int] | None:
    """(heads, key/value groups), of this module if it says so, else of the config; None if nobody says."""
    config: Any = getattr(module, "config", None) or getattr(model, "config", None)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    heads = getattr(module, "num_heads", None) or getattr(config, "num_attention_heads", None)
    groups = getattr(module, "num_key_value_heads", None) or getattr(config, "num_key_value_heads", None)
    each = getattr(module, "num_key_value_groups", None)
    if isinstance(heads, int) and isinstance(each, int) and each > 0:
        groups = heads // each
    groups = groups or heads
    if not isinstance(heads, int) or not isinstance(groups, int) or heads < 1 or heads % groups:
        return None
    return heads, groups


Slices = dict[str, list[tuple[Slice, ...]]]


def _cut(names: Iterable[str], projection: str, dim: int, of: range, count: int) -> list[tuple[Slice, ...]]:
    """`count` equal stretches of `of` along a dimension: of each parameter in `names`, which are of one length."""
    width = len(of) // count
    return [
        tuple(
            Slice(name, projection, dim if name.endswith("weight") else 0, start, start + width)
            for name in names
        )
        for start in range(of.start, of.start + count * width, max(1, width))
    ]


def _with_bias(stem: str, own: Seen) -> list[str]:
    return [name for name in (f"{stem}.weight", f"{stem}.bias") if name in own]


def _separate(path: str, out: str, own: Seen, heads: int, groups: int) -> Slices | None:
    """q_proj, k_proj and v_proj, head after head. With a gated q, as Qwen3-Next has, its gate is beside each head."""
    if any(f"{path}.{p}_proj.weight" not in own for p in "qkv"):
        return None
    found = {}
    for p, count in (("q", heads), ("k", groups), ("v", groups)):
        names = _with_bias(f"{path}.{p}_proj", own)
        found[p] = _cut(names, p, 0, range(own[names[0]].shape[0]), count)
    found["o"] = _cut([out], "o", 1, range(own[out].shape[1]), heads)
    return found


def _fused(path: str, out: str, own: Seen, heads: int, groups: int) -> Slices | None:
    """Phi-3's qkv_proj: the rows of q, then those of k, then those of v."""
    names = _with_bias(f"{path}.qkv_proj", own)
    if not names or not out.endswith("o_proj.weight"):
        return None
    width = own[out].shape[1] // heads
    q, kv = heads * width, groups * width
    if own[names[0]].shape[0] != q + 2 * kv:
        return None
    return {
        "q": _cut(names, "q", 0, range(q), heads),
        "k": _cut(names, "k", 0, range(q, q + kv), groups),
        "v": _cut(names, "v", 0, range(q + kv, q + 2 * kv), groups),
        "o": _cut([out], "o", 1, range(own[out].shape[1]), heads),
    }


def _interleaved(path: str, out: str, own: Seen, heads: int, groups: int) -> Slices | None:
    """GPT-NeoX's and BLOOM's query_key_value: of each head in turn the rows of q, of k and of v."""
    names = _with_bias(f"{path}.query_key_value", own)
    rows, columns = own[out].shape
    if not names or heads != groups or own[names[0]].shape[0] != 3 * columns or rows != columns:
        return None
    width = columns // heads
    found: Slices = {"o": _cut([out], "o", 1, range(columns), heads)}
    for at, p in enumerate("qkv"):
        found[p] = [
            _cut(names, p, 0, range((3 * h + at) * width, (3 * h + at + 1) * width), 1)[0]
            for h in range(heads)
        ]
    return found


def _transposed(path: str, out: str, own: Seen, heads: int, groups: int) -> Slices | None:
    """GPT-2's c_attn: (in, out), the columns of q, then those of k, then those of v; c_proj is (in, out) too."""
    names = _with_bias(f"{path}.c_attn", own)
    width = own[out].shape[0]
    if not names or heads != groups or tuple(own[names[0]].shape) != (width, 3 * width):
        return None
    found = {p: _cut(names, p, 1, range(at * width, (at + 1) * width), heads) for at, p in enumerate("qkv")}
    found["o"] = _cut([out], "o", 0, range(width), heads)
    return found


def _is_even(slices: Slices, own: Seen) -> bool:
    """Whether the slices of each parameter cover it: nothing left over, as where a count does not divide it."""
    covered: dict[str, int] = {}
    for one in (one for several in slices.values() for each in several for one in each):
        covered[one.name] = covered.get(one.name, 0) + one.of(own[one.name]).numel()
    return all(own[name].numel() == count for name, count in covered.items())


def _numbers(layers: list[int]) -> str:
    """[0, 1, 2, 4] as "layers 0-2, 4"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and runs[-1][1] == layer - 1:
            runs[-1][1] = layer
        else:
            runs.append([layer, layer])
    text = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)
    return f"layer{'s' if len(layers) > 1 else ''} {text}"
