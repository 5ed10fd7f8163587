"""Texts through a model, many at a time, and what it gives at each site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pv.vecstore.activations.hooks import captured
from pv.vecstore.activations.reading import Text
from pv.vecstore.models.reply_columns import reply_from

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["passes"]

TOKENS = 1 << 12  # in a batch, padding included


def passes(
    model: PreTrainedModel, texts: Sequence[Text], sites: Sequence[str]
) -> Iterator[tuple[list[int], dict[str, torch.Tensor]]]:
    """Indices of texts, and what each site gave for them (B, T, ...): by length, padded at the right.

    The same texts in the same batches for every model. What steers the model is told where each answer begins.
    """
    import torch

    order = sorted(range(len(texts)), key=lambda i: (len(texts[i].tokens), i))
    training = model.training
    model.eval()
    try:
        while order:
            count = 1
            while count < len(order) and (count + 1) * len(texts[order[count]].tokens) <= TOKENS:
                count += 1
            picked, order = order[:count], order[count:]
            width = len(texts[picked[-1]].tokens)
            ids = torch.zeros(count, width, dtype=torch.int64)
            real = torch.zeros_like(ids)
            for at, i in enumerate(picked):
                tokens = texts[i].tokens
                ids[at, : len(tokens)] = torch.tensor(tokens)
                real[at, : len(tokens)] = 1
            prompts = [texts[i].prompt for i in picked]
            begins = reply_from([len(prompt) - 1 for prompt in prompts], partial(list, prompts))
            with torch.no_grad(), begins, captured(model, sites) as seen:
                model(
                    input_ids=ids.to(model.device), attention_mask=real.to(model.device),
                    use_cache=False, logits_to_keep=1,
                )  # fmt: skip
            yield picked, dict(seen)
    finally:
        model.train(training)
