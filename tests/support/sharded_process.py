"""One of several processes that train with FSDP2 over gloo: `python sharded_process.py RANK WORLD PORT FOLDER CASE`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import pv
from support.tiny import tiny_model

STEPS = 6


def settings(case: str, rank: int) -> dict[str, Any]:
    chosen: dict[str, Any] = {"lr": 1e-2, "rank": 8, "refresh": 4, "max_norm": 1.0, "weight_decay": 0.1}
    if case == "mini":
        chosen |= {"rank": 1, "factors": "tensor"}
    if case == "gaussian":
        chosen |= {"projection": "gaussian"}
    if case == "disagree" and rank == 1:
        chosen["seed"] = 7
    return chosen


def batch(step: int) -> torch.Tensor:
    return torch.randint(0, 256, (4, 24), generator=torch.Generator().manual_seed(step))


def train(model: Any, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        ids = batch(step)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


def alone(case: str) -> dict[str, torch.Tensor]:
    model = tiny_model()
    train(model, pv.Apollo(model.named_parameters(), **settings(case, 0)), range(STEPS))
    return {name: p.detach() for name, p in model.named_parameters()}


def main(rank: int, world: int, port: str, folder: Path, case: str) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import Shard

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, RANK=str(rank), WORLD_SIZE=str(world))
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (world,))
    model = tiny_model()

    def place(p: torch.nn.Parameter) -> Any:
        return Shard(1) if p.ndim == 2 and p.shape[0] < p.shape[1] and case != "rows" else Shard(0)

    for layer in model.model.layers:
        fully_shard(layer, mesh=mesh, shard_placement_fn=place)
    fully_shard(model, mesh=mesh, shard_placement_fn=place)
    optimizer = pv.Apollo(model.named_parameters(), **settings(case, rank))
    if case == "dies":
        train(model, optimizer, range(2))
        if rank == 1:
            os._exit(9)
        for p in model.parameters():  # the optimizer is the first that asks the others
            p.grad = torch.zeros_like(p)
        optimizer.step()
    elif case == "resume":
        train(model, optimizer, range(3))
        from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
        from torch.distributed.checkpoint.state_dict_loader import load
        from torch.distributed.checkpoint.state_dict_saver import save

        save({"optimizer": get_optimizer_state_dict(model, optimizer)}, checkpoint_id=folder / "state")
        optimizer = pv.Apollo(model.named_parameters(), **settings(case, rank))
        for p in model.parameters():  # as of a first step, so that there is a state to load into
            p.grad = torch.zeros_like(p)
        before = [p.detach().to_local().clone() for p in model.parameters()]
        optimizer.step()
        for p, value in zip(model.parameters(), before, strict=True):
            p.detach().to_local().copy_(value)
        optimizer.zero_grad()
        state = get_optimizer_state_dict(model, optimizer)
        load({"optimizer": state}, checkpoint_id=folder / "state")
        set_optimizer_state_dict(model, optimizer, state)
        train(model, optimizer, range(3, STEPS))
    else:
        train(model, optimizer, range(STEPS))
    whole = {name: p.full_tensor().detach() for name, p in model.named_parameters()}
    held = sum(
        x.to_local().numel() for s in optimizer.state.values() for x in s.values() if hasattr(x, "to_local")
    )
    torch.save({"weights": whole, "held": held}, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5])
