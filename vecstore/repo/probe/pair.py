"""Both builds of a probe in memory: one as a model, the other as tensors that can be put in its place."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.words import size
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.probe.graft import swapped
from pv.vecstore.progress import Report, said
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.probe.sides import Side, Sides
from pv.vecstore.repo.thread_count import thread_count
from pv.vecstore.train.devices import free_memory

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.repo.reading import Reading

__all__ = ["Pair", "pair"]

COPIES = 3  # of the weights: A's, B's, and what is computed from them


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """`model` has A's weights, in fp32, in eval mode, with eager attention; `other` has B's, by parameter name."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    other: Mapping[str, torch.Tensor]

    def swapped(self) -> AbstractContextManager[None]:
        """The model has B's weights inside, and A's own again afterwards: bit for bit, since none is copied."""
        return swapped(self.model, self.other)


@contextmanager
def pair(
    repo: Reading, asked: Sides, *, threads: int | None = None, progress: Report | None = None
) -> Iterator[Pair]:
    """Build and load both; their vectors are held meanwhile. Raises MissingBase, CheckpointRefused, and
    UsageError where there is too little memory."""
    packs = repo.registry.packs
    _check_memory(repo, asked)
    with ExitStack() as held:
        for vector in sorted({*asked.a.persona.vectors, *asked.b.persona.vectors}):
            if packs.has(vector):
                held.enter_context(packs.holding(vector))
        held.enter_context(torch_threads(threads))
        other, _ = _loaded(repo, asked.b, threads, progress)
        tensors = {name: parameter.detach() for name, parameter in other.named_parameters()}
        del other
        model, tokenizer = _loaded(repo, asked.a, threads, progress)
        own = {name: parameter.shape for name, parameter in model.named_parameters()}
        if own != {name: tensor.shape for name, tensor in tensors.items()}:
            raise UsageError(f"{asked.a.name} and {asked.b.name} are not of one shape")
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model.set_attn_implementation("eager")
        yield Pair(model, tokenizer, tensors)


def _loaded(
    repo: Reading, side: Side, threads: int | None, progress: Report | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    with temporary_checkpoint(
        repo.registry,
        side.commit,
        side.persona,
        what=side.name,
        threads=thread_count(threads),
        progress=progress,
    ) as folder:
        said(progress, f"loading {side.name}")
        return load(folder)


def _check_memory(repo: Reading, asked: Sides) -> None:
    import torch

    table = repo.registry.base(asked.b.commit).tensors.values()
    needed = COPIES * 4 * sum(math.prod(row.shape) for row in table)
    free = free_memory(torch.device("cpu"))
    if free is not None and needed > free:
        raise UsageError(
            f"a probe has both builds in memory, in fp32: about {size(needed)}, and {size(free)} are free",
            hint="close what else needs memory, or use a machine that has more",
        )
