"""What of a model comes and goes together: an MLP's neuron, and a head of attention, as slices of its weights.

neuron     its row of gate and up (or of the one that goes in), its column of down
head       its rows of q, its columns of o; the rows of k and v of a group of heads are a unit of their own
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import Site, blocks, module_at
from pv.vecstore.probe.edit_places import projection
from pv.vecstore.train.proximal import Bundle, Slices

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Units", "units"]

INTO = (
    ("gate_proj", "up_proj"),
    ("gate_up_proj",),
    ("w1", "w3"),
    ("c_fc",),
    ("fc1",),
    ("fc_in",),
    ("dense_h_to_4h",),
)
"""What goes into MLPs beside `down_proj`, `c_proj`, ...: what is there first."""


@dataclass(frozen=True, slots=True)
class Units:
    """A bundle a layer; `heads` has up to two, and none of a layer whose attention is of another kind."""

    neurons: tuple[Bundle, ...]
    heads: tuple[Bundle, ...]

    @property
    def count(self) -> int:
        """Neurons, of all layers."""
        return sum(bundle[0].count for bundle in self.neurons)


def units(model: nn.Module) -> Units:
    """Raises UsageError for a mixture of experts, and for MLPs of another kind than pv knows."""
    neurons: list[Bundle] = []
    heads: list[Bundle] = []
    for layer, name in enumerate(blocks(model)):
        neurons.append(_neurons(model, layer, name))
        heads += _heads(model, name)
    return Units(tuple(neurons), tuple(heads))


def _neurons(model: nn.Module, layer: int, block: str) -> Bundle:
    down = projection(model, layer)
    width = down.matrix.shape[1]
    mlp = down.name.rpartition(".")[0]
    inside = {
        name.rpartition(".")[2]: module for name, module in module_at(model, Site(mlp)).named_children()
    }
    for names in INTO:
        if all(name in inside and getattr(inside[name], "weight", None) is not None for name in names):
            parts = [part for name in names for part in _into(f"{mlp}.{name}", inside[name], width)]
            return (*parts, Slices(down.parameter, 0 if down.transposed else 1, width))
    raise UsageError(
        f"the MLP of layer {layer} is of a kind that pv has not been told of: its neurons cannot be told apart",
        hint="known are MLPs with gate, up and down projections, and plain ones of two",
    )


def _into(name: str, module: Any, width: int) -> Iterator[Slices]:
    """A neuron's place in a projection that goes in: gate and up may be one tensor, one after the other."""
    dim = 1 if type(module).__name__ == "Conv1D" else 0
    for start in range(0, module.weight.shape[dim], width):
        yield Slices(f"{name}.weight", dim, width, start, width)
        if getattr(module, "bias", None) is not None:
            yield Slices(f"{name}.bias", 0, width, start, width)


def _heads(model: nn.Module, block: str) -> Sequence[Bundle]:
    names = [name for name, _ in module_at(model, Site(block)).named_modules() if name.endswith(".q_proj")]
    text = model.config.get_text_config()  # type: ignore[union-attr, operator]
    count = getattr(text, "num_attention_heads", None)
    if len(names) != 1 or not count:
        return ()
    at = f"{block}.{names[0].rpartition('.')[0]}"
    attention: Any = module_at(model, Site(at))
    if not all(hasattr(attention, name) for name in ("k_proj", "v_proj", "o_proj")):
        return ()
    groups = getattr(text, "num_key_value_heads", None) or count
    if attention.q_proj.weight.shape[0] != attention.o_proj.weight.shape[1]:
        return ()  # its queries have a gate beside them
    return (
        (Slices(f"{at}.q_proj.weight", 0, count), Slices(f"{at}.o_proj.weight", 1, count)),
        (Slices(f"{at}.k_proj.weight", 0, groups), Slices(f"{at}.v_proj.weight", 0, groups)),
    )
