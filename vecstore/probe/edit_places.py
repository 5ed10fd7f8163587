"""The projection that ends a layer's MLP: what a rank-one edit changes. Mixtures of experts have none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.activations.sites import blocks
from pv.vecstore.probe.mlps import is_mixture, mlp_ends

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["Projection", "projection"]


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """Of one layer: the module's name in the model, its weight's name, and whether that is (in, out)."""

    layer: int
    name: str
    weight: torch.Tensor
    transposed: bool

    @property
    def parameter(self) -> str:
        return f"{self.name}.weight"

    @property
    def matrix(self) -> torch.Tensor:
        """(out, in): a view."""
        return self.weight.detach().T if self.transposed else self.weight.detach()

    def as_stored(self, change: torch.Tensor) -> torch.Tensor:
        """An (out, in) change in the weight's own layout and dtype."""
        return (change.T if self.transposed else change).to(self.weight.dtype).contiguous()


def projection(model: nn.Module, layer: int) -> Projection:
    """Raises UsageError for a layer that there is none of, and one whose MLP ends in no single projection."""
    names = blocks(model)
    if not 0 <= layer < len(names):
        raise UsageError(
            f"no layer {layer}: this model has {len(names)}", hint=f"a number from 0 to {len(names) - 1}"
        )
    block = model.get_submodule(names[layer])
    ends = mlp_ends(block)
    if len(ends) != 1 or is_mixture(block):
        raise UsageError(
            f"the MLP of layer {layer} does not end in one known projection: it is a mixture of experts, or of an "
            "architecture that pv has not been told of",
            hint="a rank-one edit needs an MLP with one down projection",
        )
    ((name, module),) = ends.items()
    weight: Any = module.weight
    return Projection(layer, f"{names[layer]}.{name}", weight, type(module).__name__ == "Conv1D")
