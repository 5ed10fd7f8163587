"""What a step's rows add to the loss. The loop knows no more of it than this file's three methods.

    objective = Objective.prepare(model, data, options)     once, while the weights are still the base's
    rows = objective.with_general(step, rows)               what joins the step's rows
    loss = objective.loss(model, part, rows)                of a part of them: terms that add up

Nothing here may depend on the weights of a step: a run that goes on after a stop prepares again, on the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["Loss", "Objective"]


@dataclass(frozen=True, slots=True)
class Loss:
    """Terms by name, each with its weight in it; the loss is their sum, in this order."""

    terms: Mapping[str, torch.Tensor]

    @property
    def total(self) -> torch.Tensor:
        return reduce(add, self.terms.values())


@dataclass(frozen=True, slots=True)
class Objective:
    """Likelihood of chosen, a mean over the step's tokens; and for rows with a rejected answer
    log(1 + exp(−gap)), a mean over the step's rows, where gap is the difference of the two answers' mean
    log-probability per token. It needs no reference model, and fades as the two come apart.
    """

    options: TrainOptions

    @classmethod
    def prepare(cls, model: PreTrainedModel, data: Sequence[Encoded], options: TrainOptions) -> Objective:
        """Before the first step: the weights are the base's. What the loss needs of the base is kept here."""
        return cls(options)

    def with_general(self, step: int, rows: Sequence[Encoded]) -> Sequence[Encoded]:
        """The rows of a step, and general ones that join it. Their order decides bits."""
        return rows

    def kind(self, row: Encoded) -> int:
        """Rows of one kind run together; kinds run in the order of their numbers."""
        return 0 if self._is_pair(row) else 1

    def loss(self, model: PreTrainedModel, part: Sequence[Encoded], rows: Sequence[Encoded]) -> Loss:
        """What `part`, all of one kind, adds to the loss of the step's `rows`."""
        from torch.nn.functional import softplus

        from pv.vecstore.models.logprobs import collate, decision_logps, full_logps

        pairs = self._is_pair(part[0])
        answers = [[row.chosen, row.rejected or ()] if pairs else [row.chosen] for row in part]
        batch = collate([row.context for row in part], answers).to(model.device)
        found = (decision_logps if self.options.frozen_context else full_logps)(model, batch).sum(1)  # (N,)
        terms = {"sft": -found[:: batch.copies].sum() / sum(len(row.chosen) for row in rows)}
        if pairs:
            mean = found / batch.counts
            gap = softplus(mean[1::2] - mean[::2])
            terms["preference"] = self.options.preference * gap.sum() / len(rows)
        return Loss(terms)

    def _is_pair(self, row: Encoded) -> bool:
        return row.rejected is not None and self.options.preference > 0
