"""Where in the weights a change is: shares of its squared norm, by thirds of depth (by layer, of fewer than three), and
by projection."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pv.vecstore.probe.parts import PROJECTIONS, Parts

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["WeightShares", "weight_shares"]

THIRDS = ("first third", "middle third", "last third")
OUTSIDE = "outside the layers"


@dataclass(frozen=True, slots=True)
class WeightShares:
    """`norm` is that of B's parameters minus A's; shares of its square, each of which adds up to 1 (or 0 for none).

    `expected` is the share that each projection has of all parameters: noise in every weight alike would give that.
    """

    norm: float
    relative: float
    by_depth: Mapping[str, float]
    by_projection: Mapping[str, float]
    expected: Mapping[str, float]

    def ordered(self) -> WeightShares:
        """In the order in which they are said: the keys of a record are sorted."""
        return replace(
            self,
            by_depth=_ordered(self.by_depth, (*THIRDS, OUTSIDE)),
            by_projection=_ordered(self.by_projection, PROJECTIONS),
            expected=_ordered(self.expected, PROJECTIONS),
        )


def _ordered(value: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    first = sorted(value.keys() - names)  # single layers
    return {name: value[name] for name in (*first, *names) if name in value}


def weight_shares(model: nn.Module, other: Mapping[str, torch.Tensor], parts: Parts) -> WeightShares:
    own = dict(model.named_parameters())
    depths = THIRDS if parts.layers >= 3 else tuple(f"layer {layer}" for layer in range(parts.layers))
    depth, projection, count = (
        dict.fromkeys((*depths, OUTSIDE), 0.0),
        dict.fromkeys(PROJECTIONS, 0.0),
        dict.fromkeys(PROJECTIONS, 0),
    )
    size = 0.0
    for part in parts.parts:
        at = OUTSIDE if part.layer is None else depths[len(depths) * part.layer // parts.layers]
        for one in part.slices:
            mine = one.of(own[one.name].detach())
            moved = float((one.of(other[one.name]) - mine).double().square().sum())
            size += float(mine.double().square().sum())
            depth[at] += moved
            projection[one.projection] += moved
            count[one.projection] += mine.numel()
    whole = sum(depth.values())
    all_of_it = sum(count.values())
    return WeightShares(
        whole**0.5,
        (whole / size) ** 0.5 if size else 0.0,
        {name: value / (whole or 1) for name, value in depth.items()},
        {name: value / (whole or 1) for name, value in projection.items() if count[name]},
        {name: value / all_of_it for name, value in count.items() if value},
    )
