"""Parameters that several processes hold in shares (DTensor: FSDP2): which share is here, and sums over all.

Where a share has whole channels (Shard(0) of a tall matrix, Shard(1) of a wide one) only the norms travel: one
number or two for each tensor, all in one all-reduce. Where channels themselves are cut, their sketches are added up,
also in one all-reduce for all tensors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Shard", "add_up", "agree", "local", "shard_of", "whole"]


@dataclass(frozen=True, slots=True)
class Shard:
    """A DTensor's share: its mesh, placements, whole shape, and the place of the share's first element."""

    mesh: Any
    placements: tuple[Any, ...]
    shape: tuple[int, ...]
    offset: tuple[int, ...]

    def groups(self, dims: Sequence[int]) -> list[Any]:
        """The process groups between which one of these dimensions is shared out."""
        return [
            self.mesh.get_group(number)
            for number, placed in enumerate(self.placements)
            if placed.is_shard() and placed.dim in dims
        ]

    def whole(self, dim: int | None, size: int, part: Tensor) -> Tensor:
        """A DTensor of the shape of the parameter, but for `size` entries, on every process, in dimension `dim`."""
        from torch.distributed.tensor import DTensor, Replicate

        shape = list(self.shape)
        placements = list(self.placements)
        if dim is not None:
            shape[dim] = size
            placements = [Replicate() if p.is_shard() and p.dim == dim else p for p in placements]
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(
            part, self.mesh, placements, run_check=False, shape=torch.Size(shape), stride=stride
        )


def local(x: Tensor) -> Tensor:
    """The share of a tensor that this process holds: of an ordinary one, all of it."""
    found: Tensor = x.to_local() if hasattr(x, "to_local") else x
    return found


def whole(x: Tensor) -> Tensor:
    """All of a tensor; of a DTensor, gathered from all processes, which all have to ask."""
    found: Tensor = x.full_tensor() if hasattr(x, "full_tensor") else x
    return found


def shard_of(p: Tensor) -> Shard | None:
    """None for an ordinary tensor. Raises RuntimeError for a DTensor of another kind than FSDP2 makes."""
    if not hasattr(p, "to_local"):
        return None
    from torch.distributed.tensor import DTensor
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
    from torch.distributed.tensor.placement_types import Replicate
    from torch.distributed.tensor.placement_types import Shard as Sharded

    assert isinstance(p, DTensor)
    shared = [placed.dim for placed in p.placements if isinstance(placed, Sharded)]
    plain = all(type(placed) in (Sharded, Replicate) for placed in p.placements)
    if not plain or len(set(shared)) < len(shared):
        raise RuntimeError(f"Apollo takes Shard and Replicate, one for each dimension, not {p.placements}")
    _, offset = compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)
    return Shard(p.device_mesh, tuple(p.placements), tuple(p.shape), tuple(offset))


def add_up(values: Tensor, groups: Sequence[Sequence[Any]], what: str) -> Tensor:
    """(n,) values, each summed over its own process groups: one all-reduce for each group that there is."""
    import torch.distributed as dist

    for group in dict.fromkeys(group for own in groups for group in own):
        mine = torch.tensor([group in own for own in groups], device=values.device)
        sums = torch.where(mine, values, torch.zeros_like(values))
        try:
            dist.all_reduce(sums, group=group)
        except RuntimeError as error:
            raise _lost(what) from error
        values = torch.where(mine, sums, values)
    return values


def agree(said: str, shards: Sequence[Shard | None], device: torch.device) -> None:
    """Raises RuntimeError unless all processes that share parameters say the same."""
    import torch.distributed as dist

    groups = [
        shard.mesh.get_group(number) for shard in shards if shard for number in range(len(shard.placements))
    ]
    number = int.from_bytes(hashlib.sha256(said.encode()).digest()[:7], "little")
    for group in dict.fromkeys(groups):
        mine = torch.tensor([number], dtype=torch.int64, device=device)
        found = [torch.zeros_like(mine) for _ in range(dist.get_world_size(group))]
        try:
            dist.all_gather(found, mine, group=group)
        except RuntimeError as error:
            raise _lost("their settings") from error
        others = [rank for rank, one in enumerate(found) if int(one) != number]
        if others:
            raise RuntimeError(
                f"process {dist.get_rank(group)} and process {others[0]} do not train the same: names or shapes of "
                "parameters, or settings of Apollo (rank, seed, ...) differ between them"
            )


def _lost(what: str) -> RuntimeError:
    return RuntimeError(
        f"another process of this run has stopped or cannot be reached (while adding up {what}): look for its error, "
        "and start all of them again from the last checkpoint"
    )
