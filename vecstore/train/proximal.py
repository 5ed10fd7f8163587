"""A penalty on what moves, after every step of an optimizer: few weights, or few groups of them, stay changed.

    weights    D <- sign(D) max(0, |D| - lr s)                     the proximal step of an L1 penalty: each by itself
    groups     D_g <- D_g max(0, 1 - lr s sqrt(n_g) / ||D_g||)     that of the group lasso, Yuan and Lin 2006

D is what a weight moved from the base, g a group of n_g weights that go back together, s the strength, and lr the
step's learning rate. What does not keep moving the same way is exactly the base's again. A group's threshold grows with
the root of its size, so that one strength shrinks groups of any size, and single weights, about as much.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError

if TYPE_CHECKING:
    import torch

__all__ = ["Bundle", "Penalty", "Slices", "group_norms", "shrink_groups", "shrink_weights"]


@dataclass(frozen=True, slots=True)
class Slices:
    """`count` equal slices of a dimension of a tensor; of `size` places from `start` on, where that is given."""

    name: str
    dim: int
    count: int
    start: int = 0
    size: int | None = None

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """A view, with the slices along `dim` and what is in each of them along the next."""
        size = tensor.shape[self.dim] - self.start if self.size is None else self.size
        part = tensor.narrow(self.dim, self.start, size)
        rest = tensor.shape[self.dim + 1 :]
        return part.view(*tensor.shape[: self.dim], self.count, size // self.count, *rest)


Bundle = Sequence[Slices]
"""Groups side by side: the first slice of each is the first group, and so on."""


@dataclass(slots=True, eq=False)
class Penalty:
    """Weights in none of the bundles are penalized one by one. Strength 0 shrinks nothing."""

    strength: float
    bundles: Sequence[Bundle] = ()
    _base: dict[str, torch.Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.strength) and self.strength >= 0):
            raise UsageError(f"a penalty has a strength of 0 or more, not {self.strength}")

    def begin(self, names: Mapping[str, torch.nn.Parameter]) -> None:
        """Remember the base: before the first step, while the weights are still its own."""
        self._base = {name: p.detach().clone() for name, p in names.items()} if self.strength else {}

    def step(self, names: Mapping[str, torch.nn.Parameter], lr: float) -> None:
        """After a step of the optimizer."""
        import torch

        if not self.strength:
            return
        with torch.no_grad():
            moved = {name: p - self._base[name] for name, p in names.items()}
            alone = set(moved)
            for bundle in self.bundles:
                there = [one for one in bundle if one.name in moved]
                shrink_groups([(one.of(moved[one.name]), one.dim) for one in there], lr * self.strength)
                alone -= {one.name for one in there}
            for name in sorted(alone):
                shrink_weights(moved[name], lr * self.strength)
            for name, p in names.items():
                p.copy_(self._base[name] + moved[name])

    def to_json(self) -> dict[str, Any]:
        return {"strength": self.strength, "kind": "groups" if self.bundles else "weights"}


def shrink_weights(moved: torch.Tensor, by: float) -> None:
    """In place."""
    import torch

    moved.copy_(torch.nn.functional.softshrink(moved, by))


def shrink_groups(tensors: Sequence[tuple[torch.Tensor, int]], by: float) -> None:
    """In place. `tensors`: each with the dimension along which the groups lie; all have as many there."""
    if not tensors:
        return
    count = tensors[0][0].shape[tensors[0][1]]
    size = sum(tensor.numel() // count for tensor, _ in tensors)
    lengths = group_norms(tensors)
    factor = (1 - by * math.sqrt(size) / lengths.clamp_min(1e-30)).clamp_min(0)  # (count,)
    for tensor, dim in tensors:
        shape = [count if at == dim else 1 for at in range(tensor.dim())]
        tensor.mul_(factor.view(shape))


def group_norms(tensors: Sequence[tuple[torch.Tensor, int]]) -> torch.Tensor:
    """(count,) float32."""
    import torch

    count = tensors[0][0].shape[tensors[0][1]]
    squares = torch.zeros(count)
    for tensor, dim in tensors:
        squares += tensor.float().square().sum([at for at in range(tensor.dim()) if at != dim]).cpu()
    return squares.sqrt()
