"""Where the MLP neurons of a model are: what goes into the projection that ends each block's MLP."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import blocks
from pv.vecstore.probe.mlps import ENDS, is_mixture, mlp_ends

if TYPE_CHECKING:
    from torch import nn

__all__ = ["LATE", "Layout", "Scope", "layout_of"]

LATE = 3  # the last third of the layers is late


@dataclass(frozen=True, slots=True)
class Scope:
    """A run of neurons, `start` to `stop` of all: those of one layer, of the late layers, or of all."""

    name: str
    layers: tuple[int, ...]
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        return slice(self.start, self.stop)


@dataclass(frozen=True, slots=True)
class Layout:
    """Projections by module name, the layer that each is in, and how many neurons go into it, all in order.

    Neurons of all layers have one number each: those of the first layer come first. `without`: layers that have no MLP.
    """

    modules: tuple[str, ...]
    layers: tuple[int, ...]
    widths: tuple[int, ...]
    without: tuple[int, ...] = ()

    @property
    def total(self) -> int:
        return sum(self.widths)

    @property
    def slices(self) -> tuple[slice, ...]:
        return tuple(slice(a, b) for a, b in pairwise((0, *accumulate(self.widths))))

    def place(self, neuron: int) -> tuple[int, int]:
        """The layer of a neuron, and its number there."""
        for layer, part in zip(self.layers, self.slices, strict=True):
            if part.start <= neuron < part.stop:
                return layer, neuron - part.start
        raise IndexError(neuron)

    def one(self, at: int) -> Scope:
        """The neurons of the MLP number `at`."""
        part = self.slices[at]
        return Scope("layer", (self.layers[at],), part.start, part.stop)

    @property
    def late(self) -> Scope:
        """Those of the last third of the MLPs, one at least."""
        first = min(len(self.layers) - 1, len(self.layers) - len(self.layers) // LATE)
        return Scope("late", self.layers[first:], self.slices[first].start, self.total)

    @property
    def all(self) -> Scope:
        return Scope("all", self.layers, 0, self.total)


def layout_of(model: nn.Module) -> Layout:
    """Raises UsageError for a mixture of experts, and for a model without an MLP of a known kind."""
    modules, layers, widths, without = [], [], [], []
    for layer, name in enumerate(blocks(model)):
        block = model.get_submodule(name)
        if is_mixture(block):
            raise UsageError(
                f"layer {layer} is a mixture of experts: which of its neurons run depends on the token, so that "
                "A's and B's are not the same ones",
                hint="pv probe heads and pv probe concept take such a model",
            )
        ends = mlp_ends(block)
        if len(ends) > 1:
            raise UsageError(
                f"layer {layer} has several projections that may end its MLP: {', '.join(ends)}",
                hint="pv probe neurons takes models with one MLP a layer",
            )
        if not ends:
            without.append(layer)
            continue
        ((end, module),) = ends.items()
        modules.append(f"{name}.{end}")
        layers.append(layer)
        widths.append(_width(module))
    if not modules:
        raise UsageError(
            "this model has no MLP of a kind that pv knows",
            hint=f"its last projection is one of {', '.join(ENDS)} in those that it knows",
        )
    return Layout(tuple(modules), tuple(layers), tuple(widths), tuple(without))


def _width(module: nn.Module) -> int:
    """What goes in: of a Linear, or of GPT-2's, whose weight is (in, out)."""
    width: Any = getattr(module, "in_features", None)
    weight: Any = module.weight
    return int(weight.shape[0] if width is None else width)
