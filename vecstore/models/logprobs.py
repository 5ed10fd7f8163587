"""The context-frozen step: the context runs once without gradient, the decision runs with it.

Pass 1 feeds the context but for its last token, in eval mode and without gradient, and keeps keys and values.
Pass 2 feeds the last context token (it predicts the first token of the decision) and the decision, and reads
the cache. Its gradient is that of one full pass in which the context's keys and values are constants.
That is a biased gradient of the full loss, by choice: the context is given, the decision is learnt.

    pass 1   [s0 s1] [pad pad c0 c1 c2]                  what all contexts begin with runs once for all
    pass 2                             [c3 d0 d1 d2 pad]   logits at c3, d0, d1 predict d0, d1, d2

Padding is exact: a padded token is masked for every other, and positions count real tokens only. A sliding
window counts places, not positions, so where one is narrower than the batch each context runs by itself; so
does each where a recurrent layer (linear attention, a convolution) would see the padding before a token.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.vecstore.models.held_cache import hold, is_recurrent, was_read
from pv.vecstore.models.reply_columns import reply_from

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "Batch",
    "answer_logps",
    "collate",
    "decision_logits",
    "decision_logps",
    "full_logits",
    "full_logps",
    "one_by_one",
    "prefill",
]

PLAIN_CACHES = (
    "DynamicLayer",
    "DynamicSlidingWindowLayer",
    "LinearAttentionLayer",
    "LinearAttentionAndFullAttentionLayer",
    "LinearAttentionAndSlidingWindowAttentionLayer",
)
ATTENTION = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass(frozen=True, slots=True)
class Batch:
    """B contexts with `copies` decisions each, padded. Decisions lie in order: context 0's, then context 1's.

    C is the length of what all contexts share, P the longest rest of one without its last token, S the longest
    segment (last context token and the decision without its last token), N = B * copies.
    """

    shared: torch.Tensor  # (1, C) int64
    prefix: torch.Tensor  # (B, P) int64
    prefix_mask: torch.Tensor  # (B, P) int64, 0 is padding
    prefix_positions: torch.Tensor  # (B, P)
    segment: torch.Tensor  # (N, S) int64
    segment_mask: torch.Tensor  # (N, S)
    segment_positions: torch.Tensor  # (N, S)
    targets: torch.Tensor  # (N, S) the token that each position predicts
    copies: int

    @property
    def counts(self) -> torch.Tensor:
        """Decision tokens of each row: (N,)."""
        return self.segment_mask.sum(1)

    def to(self, device: torch.device) -> Batch:
        """The same where a model is."""
        tensors = {
            one.name: getattr(self, one.name).to(device) for one in fields(self) if one.name != "copies"
        }
        return replace(self, **tensors)

    @property
    def width(self) -> int:
        """Places that a row takes, padding included: C + P + S."""
        return self.shared.shape[1] + self.prefix.shape[1] + self.segment.shape[1]

    def contexts(self) -> list[list[int]]:
        """The contexts without their last token, unpadded."""
        rests = [row[real] for row, real in zip(self.prefix, self.prefix_mask.bool(), strict=True)]
        return [[*self.shared[0].tolist(), *rest.tolist()] for rest in rests]

    def prompts(self) -> list[list[int]]:
        """The context of every decision, unpadded: N of them."""
        firsts = self.segment[:: self.copies, 0].tolist()
        return [
            [*context, last]
            for context, last in zip(self.contexts(), firsts, strict=True)
            for _ in range(self.copies)
        ]

    def apart(self) -> Iterator[Batch]:
        """The same, one decision at a time, of one context."""
        (context,) = self.contexts()
        for row, targets, count in zip(self.segment, self.targets, self.counts.tolist(), strict=True):
            yield collate([[*context, int(row[0])]], [[targets[:count].tolist()]])

    def singles(self) -> Iterator[Batch]:
        """The same, one context at a time."""
        counts = self.counts.tolist()
        for i, context in enumerate(self.contexts()):
            rows = range(i * self.copies, (i + 1) * self.copies)
            last = int(self.segment[rows[0], 0])
            yield collate([[*context, last]], [[self.targets[j, : counts[j]].tolist() for j in rows]])


def collate(contexts: Sequence[Sequence[int]], decisions: Sequence[Sequence[Sequence[int]]]) -> Batch:
    """Pad. `decisions[i]` are the answers to context i: the same number for each, none of them empty."""
    import torch

    copies = len(decisions[0])
    flat = [
        (list(context), list(d)) for context, group in zip(contexts, decisions, strict=True) for d in group
    ]
    if len(flat) != copies * len(contexts) or not all(context and decision for context, decision in flat):
        raise ValueError("every context needs a token, and as many decisions as the others, none empty")
    c = _common([list(context[:-1]) for context in contexts])
    p = max(len(context) - 1 - c for context in contexts)
    s = max(len(decision) for _, decision in flat)

    shared = torch.tensor([list(contexts[0][:c])], dtype=torch.int64)
    prefix = torch.zeros(len(contexts), p, dtype=torch.int64)
    prefix_mask, prefix_positions = torch.zeros_like(prefix), torch.zeros_like(prefix)
    for i, context in enumerate(contexts):
        n = len(context) - 1 - c
        prefix[i, p - n :] = torch.tensor(context[c:-1], dtype=torch.int64)
        prefix_mask[i, p - n :] = 1
        prefix_positions[i, p - n :] = torch.arange(c, c + n)

    segment = torch.zeros(len(flat), s, dtype=torch.int64)
    targets, segment_mask = torch.zeros_like(segment), torch.zeros_like(segment)
    segment_positions = torch.zeros_like(segment)
    for i, (context, decision) in enumerate(flat):
        n = len(decision)
        segment[i, :n] = torch.tensor([context[-1], *decision[:-1]], dtype=torch.int64)
        targets[i, :n] = torch.tensor(decision, dtype=torch.int64)
        segment_mask[i, :n] = 1
        segment_positions[i, :n] = torch.arange(len(context) - 1, len(context) - 1 + n)
    return Batch(
        shared,
        prefix,
        prefix_mask,
        prefix_positions,
        segment,
        segment_mask,
        segment_positions,
        targets,
        copies,
    )


def _common(sequences: list[list[int]]) -> int:
    """How many tokens all sequences begin with: as many as the first and the last in order do."""
    first, last = min(sequences), max(sequences)
    pairs = zip(first, last, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(last)))


def decision_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """Log-probability of every decision token, context frozen: (N, S) float32 (or wider), 0 at padding."""
    return _logps(decision_logits(model, batch), batch)


def decision_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """What predicts the decisions' tokens, row after row without padding: (tokens, V) float32 (or wider).

    The context is frozen. The model keeps its mode: train mode is for the second pass only. Gradient flows if
    it is enabled. Raises UsageError for an architecture whose cache cannot be held still.
    """
    import torch
    from torch.nn.functional import pad

    if len(batch.prefix) > 1 and (_sees_padding(model) or batch.width > _window(model)):
        return torch.cat([decision_logits(model, single) for single in batch.singles()])
    batch = batch.to(model.device)
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), reply_from([batch.width]):  # none of it is reply
            cache, mask = prefill(model, batch)
    finally:
        model.train(training)
    segment = [batch.segment, batch.segment_mask, batch.segment_positions]
    if cache is not None and segment[0].shape[1] == 1 and any(map(is_recurrent, cache.layers)):
        segment = [pad(tensor, (0, 1)) for tensor in segment]  # a single token takes a path without gradient
    ids, real, positions = segment
    with reply_from([0], batch.prompts):
        output = model(
            input_ids=ids,
            attention_mask=torch.cat([mask.repeat_interleave(batch.copies, 0), real], 1),  # (N, C + P + S)
            position_ids=positions,
            past_key_values=cache,
            use_cache=cache is not None,
        )
    if cache is not None and not was_read(cache):
        raise RuntimeError("the model did not look at its cache: the decision would be without its context")
    return _real(output.logits[:, : batch.segment.shape[1]], batch)


def prefill(model: PreTrainedModel, batch: Batch) -> tuple[Any, torch.Tensor]:
    """Pass 1: the cache of the contexts, a copy for every decision (None if all is empty), and (B, C + P) mask."""
    import torch

    cache = None
    rows, length = batch.prefix.shape
    mask = torch.cat([batch.shared.new_ones(rows, batch.shared.shape[1]), batch.prefix_mask], 1)
    if batch.shared.shape[1]:
        cache = _cache_of(model(input_ids=batch.shared, use_cache=True, logits_to_keep=1))
        _check_cache(cache, batch.shared.shape[1])
        if rows > 1:
            cache.batch_repeat_interleave(rows)
    if length:
        output = model(
            input_ids=batch.prefix,
            attention_mask=mask,
            position_ids=batch.prefix_positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = _cache_of(output)
        _check_cache(cache, mask.shape[1])
    if cache is not None:
        if rows > 1 and any(map(is_recurrent, cache.layers)):
            raise RuntimeError("a recurrent layer was given padding")
        hold(cache, batch.copies)
    return cache, mask


def full_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """The same by one pass over context and decision: gradient reaches the context too; no cache."""
    return _logps(full_logits(model, batch), batch)


def full_logits(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """decision_logits by one pass, as full_logps."""
    import torch

    n = batch.segment.shape[0]
    if n > 1 and batch.width > _window(model):  # padding that sees nothing, in a narrow window, is no number
        return torch.cat(
            [full_logits(model, alone) for single in batch.singles() for alone in single.apart()]
        )
    batch = batch.to(model.device)
    starts = [torch.tensor(c, dtype=torch.int64) for c in batch.contexts() for _ in range(batch.copies)]
    lengths = torch.tensor([len(start) for start in starts], device=model.device)  # (N,)
    width = int((lengths + batch.counts).max())
    ids = torch.zeros(n, width, dtype=torch.int64, device=model.device)
    real = torch.zeros_like(ids)
    for i, start in enumerate(starts):  # right-padded: also right for recurrent layers
        a, b = len(start), int(batch.counts[i])
        ids[i, :a] = start
        ids[i, a : a + b] = batch.segment[i, :b]
        real[i, : a + b] = 1
    with reply_from(lengths.tolist(), batch.prompts):
        logits = model(input_ids=ids, attention_mask=real, use_cache=False).logits  # (N, width, V)
    steps = torch.arange(batch.segment.shape[1], device=model.device)
    at = (lengths[:, None] + steps).clamp_max(width - 1)  # (N, S)
    return _real(logits[torch.arange(n, device=model.device)[:, None], at], batch)


def _real(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(N, S, V) logits to those that are not padding, (tokens, V)."""
    real = logits[batch.segment_mask.bool()]
    return real if real.element_size() > 4 else real.float()


def _logps(real: torch.Tensor, batch: Batch) -> torch.Tensor:
    """(tokens, V) logits to the (N, S) log-probabilities of the targets."""
    import torch

    rows = batch.segment_mask.bool().to(real.device)
    targets = batch.targets.to(real.device)[rows]
    found = torch.log_softmax(real, -1).gather(1, targets[:, None])[:, 0]
    return found.new_zeros(batch.segment.shape).masked_scatter(rows, found)


def one_by_one(model: PreTrainedModel) -> bool:
    """Whether rows may have to run through a model one by one, however many are asked for."""
    return _sees_padding(model) or _window(model) < math.inf


def _sees_padding(model: PreTrainedModel) -> bool:
    """Whether some layer carries a state from token to token."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None) or ()
    return not ATTENTION.issuperset(kinds)


def _window(model: PreTrainedModel) -> float:
    """How far the narrowest sliding or chunked attention of a model sees; infinity for full attention."""
    text = model.config.get_text_config()
    sizes = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if size), default=math.inf)


def answer_logps(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    """For scoring, on the CPU: by the cache where the architecture allows it, else in one pass: the same numbers."""
    try:
        return decision_logps(model, batch).cpu()
    except UsageError:
        return full_logps(model, batch).cpu()


def _cache_of(output: Any) -> Any:
    return getattr(output, "past_key_values", None)


def _check_cache(cache: Any, length: int) -> None:
    layers = getattr(cache, "layers", None) or ()
    strange = sorted({type(layer).__name__ for layer in layers} - set(PLAIN_CACHES))
    if not layers or strange:
        raise UsageError(
            f"this architecture keeps context in {', '.join(strange) or 'no cache'}, which cannot be frozen",
            hint="train with the full context instead (frozen_context=False)",
        )
    if cache.get_seq_length() != length:
        raise RuntimeError(f"the cache holds {cache.get_seq_length()} tokens of {length}")
