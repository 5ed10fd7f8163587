"""Several processes that train one behaviour: `torchrun --nproc-per-node 2 -m pv train rows.jsonl --as brief`.

The first one leads: it alone reads and writes the registry, and tells the others what to train. Gradients and the
optimizer's state are held in shares, and so are weights between two steps (FSDP2); every part of a step's rows is
shared out between the processes. Within a step the weights are whole on each: how often a part runs through the
model depends on its rows, and processes must not wait for each other where the others do not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pv.registry.errors import UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Processes", "follows", "lost", "several"]

T = TypeVar("T")
WAIT = timedelta(hours=12)
"""Others wait while the first one measures; the launcher stops them if it dies."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all of one run."""

    rank: int
    count: int

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def threads(self, count: int) -> int:
        """Of so many of this machine, those for one of its processes."""
        return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))

    def told(self, said: Any = None) -> Any:
        """What the first process says, which must be told by it; on every process."""
        import torch.distributed as dist

        box = [said]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def mine(self, part: Sequence[T]) -> tuple[Sequence[T], float]:
        """My share of what runs at a time, and by how much to multiply its loss, of whose gradient the mean is taken.

        All processes have to run something: if there is none left for this one, the first, and it counts for nothing.
        """
        own = part[self.rank :: self.count]
        return (own, float(self.count)) if own else (part[:1], 0.0)

    def summed(self, values: Sequence[float]) -> list[float]:
        import torch
        import torch.distributed as dist

        total = torch.tensor(list(values), dtype=torch.float64)
        dist.all_reduce(total)
        found: list[float] = total.tolist()
        return found

    def share_out(
        self, model: PreTrainedModel, names: Mapping[str, torch.nn.Parameter]
    ) -> dict[str, torch.nn.Parameter]:
        """Have each process hold a share of the weights, and give them by their names again.

        Wide matrices are cut by columns, where these can be dealt out evenly, and all else by rows: so channels stay
        whole, and Apollo's sketches need no traffic. Gradients become the mean over the processes.
        """
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import Shard

        def place(p: torch.nn.Parameter) -> Shard:
            wide = p.ndim == 2 and p.shape[0] < p.shape[1] and p.shape[1] % self.count == 0
            return Shard(1 if wide else 0)

        mesh = init_device_mesh(model.device.type, (self.count,))
        layers = [one for one in model.modules() if type(one).__name__ in (model._no_split_modules or ())]
        for module in (*layers, model):
            fully_shard(module, mesh=mesh, reshard_after_forward=False, shard_placement_fn=place)
        now = dict(model.named_parameters(remove_duplicate=False))
        return {name: now[name] for name in names}


def follows() -> bool:
    """Whether this process was started beside one that leads: it has nothing to say."""
    return os.environ.get("RANK", "0") != "0" and _count() > 1


@contextmanager
def several() -> Iterator[Processes | None]:
    """All processes that torchrun started, as long as the block runs; None for a single one."""
    if _count() == 1:
        yield None
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available():
        raise UsageError("this torch has no processes to train with", hint="start pv without torchrun")
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    own = not dist.is_initialized()
    if own:
        dist.init_process_group(backend, timeout=WAIT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        if own:
            dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process cannot be reached."""
    words = str(error)
    return any(
        one in words for one in ("Connection closed", "Connection reset", "another process", "gloo", "NCCL")
    )


def _count() -> int:
    count = os.environ.get("WORLD_SIZE", "1")
    return int(count) if count.isdecimal() and "RANK" in os.environ else 1
