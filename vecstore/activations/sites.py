"""Sites: places in a model where activations are read and steered.

    model.layers.14                                  the output of that module
    model.layers.14.self_attn.o_proj:input           what goes into it
    model.layers.14.self_attn.o_proj:input[3/9]      the fourth of nine equal slices of the last dimension: a head

Names are those of `nn.Module.named_modules()`: a layer has one number everywhere, that of its module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Site", "attention_outputs", "blocks", "layer_of", "module_at", "sites_of"]

MOST_SLICES = 4096
_SITE = re.compile(r"(?P<module>[^:\[\]\s]+)(?P<input>:input)?(?:\[(?P<index>\d{1,4})/(?P<count>\d{1,4})\])?")
_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(frozen=True, slots=True, order=True)
class Site:
    """The output of a module, or its first input; of either the slice `index` of `count`, or all."""

    module: str
    input: bool = False
    index: int = 0
    count: int = 1

    @staticmethod
    def parse(text: str | Site) -> Site:
        """Raises UsageError for what names no site."""
        if isinstance(text, Site):
            return text
        match = _SITE.fullmatch(text)
        index, count = (int(match["index"] or 0), int(match["count"] or 1)) if match else (0, 0)
        if match is None or not 0 <= index < count <= MOST_SLICES or (match["index"] and count < 2):
            raise UsageError(
                f"{text[:120]!r} names no site of a model",
                hint="a module's name, as in model.layers.14; MODULE:input; one head of nine: MODULE:input[3/9]",
            )
        return Site(match["module"], bool(match["input"]), index, count)

    def __str__(self) -> str:
        slice_ = f"[{self.index}/{self.count}]" if self.count > 1 else ""
        return f"{self.module}{':input' if self.input else ''}{slice_}"


def module_at(model: nn.Module, site: Site) -> nn.Module:
    """The module that a site is of. Raises UsageError that says which names come close."""
    from torch import nn

    modules = dict(model.named_modules())
    found: nn.Module | None = modules.get(site.module) if site.module else None
    if isinstance(found, nn.ModuleList | nn.ModuleDict):
        raise UsageError(
            f"{site.module} is a list of modules: it gives no tensor",
            hint=f"name one of them: {site.module}.0",
        )
    if found is not None:
        return found
    close = get_close_matches(site.module, [name for name in modules if name], n=3, cutoff=0.5)
    raise UsageError(
        f"this model has no module {site.module[:120]!r}",
        hint=f"there is {', '.join(close)}" if close else "`print(model)` shows the names",
    )


def blocks(model: nn.Module) -> list[str]:
    """The names of the decoder's layers, in order: the longest list of modules, the first of its length.

    Raises UsageError for a model without one.
    """
    from torch import nn

    lists = [(name, module) for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    longest = max((len(module) for _, module in lists), default=0)
    config: Any = getattr(model, "config", None)
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    wanted = getattr(text, "num_hidden_layers", None)
    for length in (wanted, longest):
        for name, module in lists:
            if length and len(module) == length:
                return [f"{name}.{i}" for i in range(length)]
    raise UsageError("this model has no list of layers", hint="name a module: --at MODULE")


def attention_outputs(model: nn.Module) -> list[str]:
    """The projections out of attention, one a layer that has one: what goes in is the heads side by side."""
    ends = (".o_proj", ".out_proj", ".c_proj", ".dense", ".wo")
    return [
        name
        for name, _ in model.named_modules()
        if name.endswith(ends) and re.search(r"\.(self_attn|attn|attention|self_attention)\.", name)
    ]


def layer_of(site: str | Site) -> int | None:
    """The first number in a module's name: the layer that a site is in; None if there is none."""
    match = _LAYER.search(Site.parse(site).module)
    return int(match[1]) if match else None


def sites_of(model: nn.Module, at: Sequence[str], layers: Iterable[int] | None = None) -> list[str]:
    """Sites by name, and the layers by number: nothing of either is every layer. Raises UsageError."""
    found = [str(Site.parse(name)) for name in at]
    for name in found:
        module_at(model, Site.parse(name))
    names = [] if layers is None and found else blocks(model)
    chosen = range(len(names)) if layers is None else sorted(set(layers))
    for layer in chosen:
        if not 0 <= layer < len(names):
            raise UsageError(f"this model has no layer {layer}", hint=f"its layers are 0 to {len(names) - 1}")
        found.append(names[layer])
    return list(dict.fromkeys(found))
