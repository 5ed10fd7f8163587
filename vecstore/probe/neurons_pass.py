"""One position of many prompts at a time: what the neurons do there, changed, and with the gradient of the margin.

A row is decided where its two answers first differ. Everything before that position is as the model has it, kept as
keys and values, so that a pass computes one token a row. Where an architecture's context cannot be kept (recurrent
layers, sliding windows), each row runs by itself, whole: the same numbers, slower.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import Encoded, Ids, encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.models.load import context_length, stop_ids
from pv.vecstore.models.logprobs import Batch, collate, one_by_one, prefill
from pv.vecstore.probe.neurons_sites import Layout, Scope

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["TOKENS", "Deciding", "Decisions", "Patch", "State", "deciding", "openings"]

TOKENS = 32_768  # of contexts that run together, padding included


@dataclass(frozen=True, slots=True)
class Deciding:
    """`tokens`: the prompt, and `depth` tokens with which both answers begin; then they go on with different ones."""

    tokens: Ids
    chosen: int
    rejected: int
    depth: int


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Where `mask` (n, D) is true, neurons take `values` (n, D)."""

    values: torch.Tensor
    mask: torch.Tensor

    def rows(self, some: slice) -> Patch:
        return Patch(self.values[some], self.mask[some])


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Of n rows at their position: logit of the chosen token minus that of the rejected one, in nats (n,), whether
    the chosen one is the likeliest of all (n,), what all D neurons do (n, D), and all logits (n, V). float32."""

    margin: torch.Tensor
    top: torch.Tensor
    activations: torch.Tensor
    logits: torch.Tensor


def deciding(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows
) -> tuple[list[Deciding], list[int]]:
    """Where the rows are decided, and the indices of those whose answers differ. Raises DataError if none do."""
    data = encode(tokenizer, rows, stops=stop_ids(model, tokenizer), limit=context_length(model))
    found = [_deciding(one) for one in data]
    kept = [index for index, one in enumerate(found) if one is not None]
    if not kept:
        raise DataError(
            f"{rows.source}: in no row do the chosen and the rejected answer differ in a token",
            hint="give rows whose answers part: what neurons are asked is which of two tokens comes next",
        )
    return [one for one in found if one is not None], kept


def openings(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: Rows) -> list[Deciding]:
    """The position from which the answer's first token comes, of every row that has a prompt."""
    asked = replace(rows, rows=tuple(row for row in rows if row.prompt), lines=())
    data = encode(tokenizer, asked, stops=stop_ids(model, tokenizer), limit=context_length(model))
    return [Deciding(one.context, one.chosen[0], one.chosen[0], 0) for one in data]


def _deciding(row: Encoded) -> Deciding | None:
    pairs = zip(row.chosen, row.rejected or (), strict=False)
    for depth, (chosen, rejected) in enumerate(pairs):
        if chosen != rejected:
            return Deciding((*row.context, *row.chosen[:depth]), chosen, rejected, depth)
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Held:
    """Rows that run together, and what is kept of their contexts: what `prefill` gives."""

    rows: slice
    batch: Batch
    cache: Any
    mask: torch.Tensor


class Decisions:
    """Rows in front of the token that decides them, run through a model as it is now: contexts run when it is made,
    `TOKENS` at a time."""

    def __init__(self, model: PreTrainedModel, layout: Layout, rows: Sequence[Deciding]) -> None:
        import torch

        self.model, self.layout, self.rows = model, layout, list(rows)
        self._modules = [model.get_submodule(name) for name in layout.modules]
        self._chosen = torch.tensor([one.chosen for one in rows])
        self._rejected = torch.tensor([one.rejected for one in rows])
        self._held: list[_Held] | None = None
        if not one_by_one(model):
            try:
                with torch.no_grad():
                    self._held = [self._hold(some) for some in _batches(self.rows)]
            except UsageError:  # a cache of a kind that is not kept
                self._held = None

    def __len__(self) -> int:
        return len(self.rows)

    def _hold(self, some: slice) -> _Held:
        rows = self.rows[some]
        batch = collate([one.tokens for one in rows], [[(one.chosen,)] for one in rows])
        return _Held(some, batch, *prefill(self.model, batch))

    def run(self, patch: Patch | None = None) -> State:
        """One pass without gradient."""
        import torch

        with torch.no_grad():
            return self._run(patch, None)

    def gradient(self, scope: Scope, patch: Patch | None = None) -> tuple[torch.Tensor, State]:
        """dM/da (n, D) of the neurons of a scope, 0 elsewhere, and the state in which it was taken.

        Of a neuron that is changed in all that follows from it, unless what follows is patched.
        """
        import torch

        shift = torch.zeros(len(self), self.layout.total)
        shift = shift[:, scope.slice].requires_grad_()
        with torch.enable_grad():
            state = self._run(patch, (scope, shift))
            (found,) = torch.autograd.grad(state.margin.sum(), shift)
        whole = torch.zeros(len(self), self.layout.total)
        whole[:, scope.slice] = found
        return whole, State(state.margin.detach(), state.top, state.activations, state.logits.detach())

    def _run(self, patch: Patch | None, shift: tuple[Scope, torch.Tensor] | None) -> State:
        import torch

        if self._held is not None:
            parts = [self._cached(one, patch, shift) for one in self._held]
        else:
            parts = [self._alone(i, patch, shift) for i in range(len(self))]
        logits, seen = torch.cat([one for one, _ in parts]), torch.cat([one for _, one in parts])
        every = torch.arange(len(self))
        margin = logits[every, self._chosen] - logits[every, self._rejected]
        return State(margin, logits.argmax(-1) == self._chosen, seen, logits)

    def _cached(
        self, held: _Held, patch: Patch | None, shift: tuple[Scope, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        with self._changed(held.rows, patch, shift) as seen:
            output = self.model(
                input_ids=held.batch.segment,
                attention_mask=torch.cat([held.mask, held.batch.segment_mask], 1),
                position_ids=held.batch.segment_positions,
                past_key_values=held.cache,
                use_cache=held.cache is not None,
            )
        return output.logits[:, -1].float(), torch.cat(seen, -1)

    def _alone(
        self, row: int, patch: Patch | None, shift: tuple[Scope, torch.Tensor] | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        with self._changed(slice(row, row + 1), patch, shift) as seen:
            output = self.model(input_ids=torch.tensor([self.rows[row].tokens]), use_cache=False)
        return output.logits[:, -1].float(), torch.cat(seen, -1)

    @contextmanager
    def _changed(
        self, rows: slice, patch: Patch | None, shift: tuple[Scope, torch.Tensor] | None
    ) -> Iterator[list[torch.Tensor]]:
        """Inside, neurons of these rows are patched at the last position, then shifted; what they did is in the list
        afterwards."""
        seen: list[torch.Tensor] = []
        count = rows.stop - rows.start
        patch = None if patch is None else patch.rows(rows)
        shift = None if shift is None else (shift[0], shift[1][rows])
        handles = [
            module.register_forward_pre_hook(_hook(count, part, patch, shift, seen))
            for module, part in zip(self._modules, self.layout.slices, strict=True)
        ]
        try:
            yield seen
        finally:
            for handle in handles:
                handle.remove()


def _batches(rows: Sequence[Deciding]) -> Iterator[slice]:
    """Rows in order, so many at a time that they are at most `TOKENS` when padded; at least one."""
    start = longest = 0
    for at, row in enumerate(rows):
        longest = max(longest, len(row.tokens))
        if at > start and longest * (at + 1 - start) > TOKENS:
            yield slice(start, at)
            start, longest = at, len(row.tokens)
    yield slice(start, len(rows))


def _hook(
    count: int,
    part: slice,
    patch: Patch | None,
    shift: tuple[Scope, torch.Tensor] | None,
    seen: list[torch.Tensor],
) -> Any:
    inside = shift is not None and shift[0].start <= part.start and part.stop <= shift[0].stop
    touched = patch is not None and bool(patch.mask[:, part].any())

    def before(_: Any, args: tuple[Any, ...]) -> Any:
        import torch

        given = args[0]
        rows = given.reshape(count, -1, given.shape[-1])  # (count, T, width): some models flatten it
        last = rows[:, -1]
        if touched and patch is not None:
            last = torch.where(patch.mask[:, part], patch.values[:, part], last)
        if inside and shift is not None:
            start = part.start - shift[0].start
            last = last + shift[1][:, start : start + part.stop - part.start]
        seen.append(last.detach())
        if not (touched or inside):
            return None
        return (torch.cat([rows[:, :-1], last[:, None]], 1).reshape(given.shape), *args[1:])

    return before
