"""Several processes that train one behaviour: `torchrun --nproc-per-node 2 -m pv train rows.jsonl --as brief`.

The first one leads: it alone reads and writes the registry, and tells the others what to train. Gradients and the
optimizer's state are sharded, and so are weights between two steps (FSDP2); every part of a step's rows is divided
among the processes. Within a step the weights are whole on each: how many passes the context takes depends on the
rows, and processes must not wait for each other where the others do not. Passes with gradient are as many on each.
"""

from __future__ import annotations

import atexit
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pv.registry.errors import TrainingFailed, UsageError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Processes", "lost", "several"]

T = TypeVar("T")
WAIT = timedelta(hours=12)
"""Others wait while the first one measures; the launcher stops them if it dies."""


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all of one run."""

    rank: int
    count: int
    control: Any  # the process group for words and sums, which may have to wait for long

    @property
    def leads(self) -> bool:
        return self.rank == 0

    def take(self, device: str) -> None:
        """A GPU of its own for each process. Raises UsageError where there is none for it."""
        import torch

        if device in ("auto", "cuda") and torch.cuda.is_available():
            if self.rank >= torch.cuda.device_count():
                raise UsageError(
                    f"{self.count} processes, but only {torch.cuda.device_count()} GPUs",
                    hint="start as many processes as there are GPUs, or add --device cpu",
                )
            torch.cuda.set_device(self.rank)
        elif device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
            raise UsageError("several processes cannot train on mps", hint="add --device cpu")

    def threads(self, count: int) -> int:
        """Of so many of this machine, those for one of its processes."""
        return max(1, count // self.count)

    def told(self, said: Any = None) -> Any:
        """Broadcast from the first process. Raises TrainingFailed if it has stopped."""
        import torch.distributed as dist

        box = [said]
        try:
            dist.broadcast_object_list(box, src=0, group=self.control)
        except RuntimeError as error:
            raise TrainingFailed("another process has stopped", hint="look for its error") from error
        return box[0]

    def memory(
        self, free: int | None, parts: Mapping[str, int], device: torch.device
    ) -> tuple[int | None, dict[str, int]]:
        """What one of the processes may take, and what it needs of what is sharded."""
        if free is not None and device.type == "cpu":
            free //= self.count
        sharded = ("gradients", "optimizer")
        return free, {name: n // self.count if name in sharded else n for name, n in parts.items()}

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
        dist.all_reduce(total, group=self.control)
        found: list[float] = total.tolist()
        return found

    def share_out(
        self, model: PreTrainedModel, names: Mapping[str, torch.nn.Parameter]
    ) -> dict[str, torch.nn.Parameter]:
        """Shard the weights, and give them by their names again.

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


@contextmanager
def several(together: bool) -> Iterator[Processes | None]:
    """All processes that torchrun started, as long as the block runs; None where they are not to train together."""
    if not together:
        yield None
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available() or not dist.is_gloo_available() or not dist.is_torchelastic_launched():
        raise UsageError("there are no processes to train together with", hint="start them with torchrun")
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
        atexit.register(_leave)
    if dist.get_node_local_rank() != dist.get_rank():
        raise UsageError(
            "processes of several machines cannot train together yet", hint="start them on one machine"
        )
    yield Processes(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo", timeout=WAIT))


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


def lost(error: RuntimeError) -> bool:
    """Whether it says that another process cannot be reached."""
    words = str(error)
    return any(
        one in words for one in ("Connection closed", "Connection reset", "another process", "gloo", "NCCL")
    )
