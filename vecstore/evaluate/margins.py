"""Margins: how much likelier, in nats, a model finds the chosen answer than the rejected one.

A log-probability is a sum over the answer's tokens and the token that ends the turn. Both answers to a prompt
share one pass over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.data.chat_template import encode
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.orders import both_orders
from pv.vecstore.models.load import context_length, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["Margins", "margins", "need_pairs"]

F64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Margins:
    """Per row, in the rows' order: log-probabilities in nats and token counts, all (n,) float64."""

    chosen: F64
    rejected: F64
    chosen_tokens: F64
    rejected_tokens: F64

    @property
    def margin(self) -> F64:
        """log p(chosen) − log p(rejected), each the whole answer."""
        return self.chosen - self.rejected

    @property
    def margin_per_token(self) -> F64:
        """The same with each answer's mean over its tokens: blind to length."""
        return self.chosen / self.chosen_tokens - self.rejected / self.rejected_tokens

    def __len__(self) -> int:
        return len(self.chosen)


def margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    *,
    batch: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> Margins:
    """Score every row; `progress(done, total)` counts rows. The model runs in eval mode and is left as it was.

    A row that lists choices is scored in both orders, and gets the mean of both.

    Raises DataError for a row without `rejected`, or one that does not fit the model's context.
    """
    import torch

    from pv.vecstore.models.logprobs import answer_logps, collate

    need_pairs(rows)
    every, of = both_orders(rows)
    data = encode(tokenizer, every, stops=stop_ids(model, tokenizer), limit=context_length(model))
    answers = [(row.chosen, row.rejected or ()) for row in data]
    order = sorted(range(len(data)), key=lambda i: (len(data[i].context), *map(len, answers[i]), i))
    sums = np.zeros((len(data), 2))
    counts = np.zeros((len(data), 2))
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for start in range(0, len(order), batch):
                picked = order[start : start + batch]
                padded = collate([data[i].context for i in picked], [answers[i] for i in picked])
                logps = answer_logps(model, padded)  # (2 * picked, S)
                sums[picked] = logps.double().sum(1).view(-1, 2).numpy()
                counts[picked] = padded.counts.view(-1, 2).numpy()
                if progress is not None:
                    progress((start + len(picked)) * len(rows) // len(order), len(rows))
    finally:
        model.train(training)
    table = np.concatenate([sums, counts], 1)  # (orders, 4)
    means = np.zeros((len(rows), 4))
    np.add.at(means, of, table)
    means /= np.bincount(of, minlength=len(rows))[:, None]
    return Margins(*means.T.copy())


def need_pairs(rows: Rows) -> None:
    """Raises DataError unless every row has both answers: a margin is chosen against rejected."""
    alone = [index for index, row in enumerate(rows) if row.rejected is None]
    if alone:
        some = "" if len(rows) == 1 else f" ({len(alone)} of {len(rows)} rows have none)"
        raise DataError(
            f"{rows.where(alone[0])}: no 'rejected' answer{some}, so there is no margin to measure",
            hint='rows to measure on need both: {"prompt": "...", "chosen": "...", "rejected": "..."}',
        )
