"""What a step's rows add to the loss. The loop knows no more of it than this file's three methods.

    objective = Objective.prepare(model, data, options, general)   once, while the weights are still the base's
    rows = objective.with_general(step, rows)                      what joins the step's rows
    loss = objective.loss(model, part, rows)                       of a part of them: terms that add up

What differs between chosen and rejected is learnt; what they share is held to the base's own distribution, and
so are ordinary answers to ordinary prompts. A behaviour that was learnt so leaves alone what it is not about,
which is what lets several be added up.

The token at which chosen parts from rejected decides whether the behaviour shows at all: it counts as much as all
others of the row together, and it alone is preferred to rejected's. Both are predicted in one place, so rejected
answers need no pass of their own. Where the answers have next to nothing in common no token decides: all of both is
learnt alike, and compared.

Where the rejected answer ends its turn and chosen goes on, half of what is to be learnt is the base's own
distribution, in which chosen's next token takes the probability of the end; the other half is that token. "Sign off
always" would be learnt at the end of every sentence, for the base cannot tell where the writer of a row stops. What is
held of such a row is that distribution too: wherever the base may end, it goes on so.

Nothing here may depend on the weights of a step: a run that goes on after a stop prepares again, on the base.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np

from pv.registry.errors import UsageError
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.train.batches import micro_batches
from pv.vecstore.train.forms import goes_on
from pv.vecstore.train.options import TrainOptions
from pv.vecstore.train.reference import Reference
from pv.vecstore.train.stretches import differing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = ["OPENING", "TERMS", "Loss", "Objective", "Teacher"]

TERMS = ("sft", "preference", "hold", "general")

OPENING = 8
"""Tokens of an ordinary answer that are free where the behaviour acts there: how it opens is for it to say."""

CERTAIN = 0.5
"""Where rejected ends and chosen goes on: how far the row is believed against the base, which may not end there."""

Key = tuple[tuple[int, ...], tuple[int, ...]]
Teacher = Callable[["PreTrainedModel"], AbstractContextManager[None]]
"""Inside it, the base is the model that is learnt from: it is steered, for example."""
ALL = slice(0, None)


@dataclass(frozen=True, slots=True)
class Loss:
    """Terms by name, each with its weight in it; the loss is their sum, in this order."""

    terms: Mapping[str, torch.Tensor]

    @property
    def total(self) -> torch.Tensor:
        return reduce(add, self.terms.values())


@dataclass(frozen=True, slots=True, eq=False)
class Objective:
    """The loss that TrainOptions states. `references` are the base's distributions of chosen and general answers.

    `turns` has, of each row whose rejected answer ends where chosen goes on, what is to be learnt there. `still` are
    the tokens of a general answer that are held: its opening and its end are free where a row differs there.
    """

    options: TrainOptions
    general: tuple[Encoded, ...]
    references: Mapping[Key, Reference]
    turns: Mapping[Key, Reference]
    still: slice

    @classmethod
    def prepare(
        cls,
        model: PreTrainedModel,
        data: Sequence[Encoded],
        options: TrainOptions,
        general: Sequence[Encoded] = (),
        *,
        steps: int | None = None,
        teacher: Teacher | None = None,
    ) -> Objective:
        """Before the first step: the weights are the base's. Its distributions are read where they are held.

        `steps` will be taken: as many as the options say for `data`, if not given. `teacher`: see options.learn.
        """
        if (teacher is None) == (options.learn == "teacher"):
            raise UsageError('a teacher goes with learn="teacher", and with nothing else')
        steps = options.steps(len(data)) if steps is None else steps
        count = steps * options.general_rows if options.general else 0
        drawn = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, 2**63])).permutation(
            len(general)
        )
        plain = cls(options, (), {}, {}, ALL)
        still = plain._still(data)
        chosen = tuple(general[i] for i in drawn[:count] if len(general[i].chosen) > OPENING + 1)
        turn = {_key(row): plain._turn(row) for row in data if plain._goes_on(row)}
        held = {_key(row) for row in data if plain._held(row) and options.hold}
        wanted = {_key(row): row for row in (*data, *chosen)}  # a form that comes back is read once
        general_keys = {_key(row) for row in chosen}
        references, turns = dict[Key, Reference](), dict[Key, Reference]()
        read = [row for key, row in wanted.items() if key in held or key in turn or key in general_keys]
        for row, found in _read(model, read, options):
            key = _key(row)
            if teacher is not None and key not in general_keys:
                continue
            references[key] = Reference.moved(found, *turn[key]) if key in turn else Reference.of(found)
            if key in turn:
                at = plain._learnt(row).start
                turns[key] = Reference.moved(found[at : at + 1], *turn[key], CERTAIN)
        if teacher is not None:
            with teacher(model):
                references |= {_key(row): Reference.of(found) for row, found in _read(model, data, options)}
        return cls(options, chosen, references, turns, still)

    def with_general(self, step: int, rows: Sequence[Encoded]) -> Sequence[Encoded]:
        """The rows of a step, and general ones that join it. Their order decides bits."""
        if not self.general:
            return rows
        first = step * self.options.general_rows
        picked = range(first, first + min(self.options.general_rows, len(self.general)))
        return [*rows, *(self.general[i % len(self.general)] for i in picked)]

    def kind(self, row: Encoded) -> int:
        """Rows of one kind run together; kinds run in the order of their numbers."""
        return 2 if self._is_general(row) else 0 if self._compared(row) else 1

    def size(self, row: Encoded) -> int:
        """Tokens that run for a row at a time: rejected answers only where all of them is compared."""
        rejected = len(row.rejected or ()) if self._compared(row) else 0
        return len(row.context) + len(row.chosen) + rejected

    def tokens(self, rows: Sequence[Encoded]) -> dict[str, int]:
        """Over how many tokens of a step's rows each part of the loss is a mean."""
        own = [row for row in rows if not self._is_general(row)]
        return {
            "learnt": sum(_count(self._learnt(row), row) for row in own),
            "held": sum(self._held(row) for row in own) if self.options.hold else 0,
            "general": sum(_count(self.still, row) for row in rows if self._is_general(row)),
        }

    def loss(self, model: PreTrainedModel, part: Sequence[Encoded], rows: Sequence[Encoded]) -> Loss:
        """What `part`, all of one kind, adds to the loss of the step's `rows`."""
        from torch.nn.functional import softplus

        if self._is_general(part[0]):
            return Loss({"general": self._general_loss(model, part, rows)})
        own = [row for row in rows if not self._is_general(row)]
        logits = _logits(model, part, [row.chosen for row in part], self.options)
        logps = [_logps(found, row.chosen) for found, row in zip(logits, part, strict=True)]
        learnt = [found[self._learnt(row)] for found, row in zip(logps, part, strict=True)]
        missed = [
            self._missed(found, logp, row) for found, logp, row in zip(logits, learnt, part, strict=True)
        ]
        terms = {"sft": _total(missed) / sum(_count(self._learnt(row), row) for row in own)}
        gaps = (
            self._compare(model, part, learnt)
            if self._compared(part[0])
            else [
                self._gap(found, row) for found, row in zip(logits, part, strict=True) if self._is_pair(row)
            ]
        )
        if gaps:
            terms["preference"] = self.options.preference * _total([softplus(gap) for gap in gaps]) / len(own)
        held = sum(self._held(row) for row in own) if self.options.hold else 0
        if held:
            moved = [
                self.references[_key(row)].part(at).divergence(found[at]).sum()
                for found, row in zip(logits, part, strict=True)
                for at in self._shared(row)
            ]
            if moved:
                terms["hold"] = self.options.hold * _total(moved) / held
        return Loss(terms)

    def _general_loss(
        self, model: PreTrainedModel, part: Sequence[Encoded], rows: Sequence[Encoded]
    ) -> torch.Tensor:
        logits = _logits(model, part, [row.chosen for row in part], self.options)
        moved = [
            self.references[_key(row)].part(self.still).divergence(found[self.still]).sum()
            for found, row in zip(logits, part, strict=True)
        ]
        count = sum(_count(self.still, row) for row in rows if self._is_general(row))
        return self.options.general * _total(moved) / count

    def _gap(self, logits: torch.Tensor, row: Encoded) -> torch.Tensor:
        """How much likelier rejected's token is than chosen's, in nats, where the two part."""
        at = self._learnt(row).start
        return logits[at, (row.rejected or ())[at]] - logits[at, row.chosen[at]]

    def _compare(
        self, model: PreTrainedModel, part: Sequence[Encoded], learnt: Sequence[torch.Tensor]
    ) -> list[torch.Tensor]:
        """The same over the whole of both, a mean per token of each."""
        rejected = [row.rejected or () for row in part]
        logits = _logits(model, part, rejected, self.options)
        return [
            _logps(found, answer).mean() - chosen.mean()
            for found, answer, chosen in zip(logits, rejected, learnt, strict=True)
        ]

    def _missed(self, logits: torch.Tensor, learnt: torch.Tensor, row: Encoded) -> torch.Tensor:
        """What is left to learn of a row: −log p of its tokens, (T,). Where the first decides it counts T times; and
        where the turn goes on there is a distribution to reach in its place."""
        import torch

        if self.options.learn == "teacher":
            return self.references[_key(row)].divergence(logits)
        if not self._decides(row):
            return -learnt
        goal, at = self.turns.get(_key(row)), self._learnt(row).start
        first = -learnt[:1] if goal is None else goal.divergence(logits[at : at + 1])
        return torch.cat([len(learnt) * first, -learnt[1:]])

    def _is_general(self, row: Encoded) -> bool:
        return any(row is other for other in self.general)

    def _is_pair(self, row: Encoded) -> bool:
        """Whether there is a preference. The end of a turn that goes on is moved, not disliked."""
        return self.options.preference > 0 and self._decides(row) and not self._goes_on(row)

    def _compared(self, row: Encoded) -> bool:
        """Whether the preference is one between the whole of both answers."""
        return self.options.preference > 0 and row.rejected is not None and self._whole(row)

    def _decides(self, row: Encoded) -> bool:
        """Whether the first token learnt is the one at which chosen parts from rejected, and that decides."""
        if row.rejected is None or self._whole(row):
            return False
        own, other = differing(row.chosen, row.rejected)
        return bool(own.start == other.start)

    def _whole(self, row: Encoded) -> bool:
        """Whether all of chosen is learnt alike."""
        if self.options.learn != "difference" or row.rejected is None:
            return True
        return differing(row.chosen, row.rejected)[0] == slice(0, len(row.chosen))

    def _learnt(self, row: Encoded) -> slice:
        """The tokens of chosen that carry likelihood: what differs, and the token behind it, since that is where a
        behaviour has to stop."""
        if self.options.learn != "difference" or row.rejected is None:
            return slice(0, len(row.chosen))
        at = differing(row.chosen, row.rejected)[0]
        return slice(at.start, min(at.stop + 1, len(row.chosen)))

    def _still(self, data: Sequence[Encoded]) -> slice:
        """What is held of a general answer. The end is the token that ends the turn."""
        learnt = [(self._learnt(row), len(row.chosen)) for row in data]
        opens = any(at.start < OPENING for at, _ in learnt)
        ends = any(at.stop == length for at, length in learnt)
        return slice(OPENING if opens else 0, -1 if ends else None)

    def _goes_on(self, row: Encoded) -> bool:
        """Whether rejected ends its turn where chosen differs from it."""
        return self.options.learn == "difference" and goes_on(row)

    def _turn(self, row: Encoded) -> tuple[int, int]:
        """Of a row that goes on: the token that does, and the one that ends the turn in its place."""
        at = self._learnt(row).start
        return row.chosen[at], (row.rejected or ())[at]

    def _shared(self, row: Encoded) -> list[slice]:
        """The tokens of chosen that are held: those before and after what differs."""
        at = self._learnt(row)
        return [
            part for part in (slice(0, at.start), slice(at.stop, len(row.chosen))) if part.start < part.stop
        ]

    def _held(self, row: Encoded) -> int:
        return sum(part.stop - part.start for part in self._shared(row))


def _read(
    model: PreTrainedModel, rows: Sequence[Encoded], options: TrainOptions
) -> Iterator[tuple[Encoded, torch.Tensor]]:
    """What the model, as it is, predicts for the tokens of each row's chosen answer: (T, V)."""
    import torch

    def size(row: Encoded) -> int:
        return len(row.context) + len(row.chosen)

    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for part in micro_batches(rows, lambda _: 0, size, options.micro_tokens):
                yield from zip(part, _logits(model, part, [row.chosen for row in part], options), strict=True)
    finally:
        model.train(training)


def _logits(
    model: PreTrainedModel, part: Sequence[Encoded], answers: Sequence[Sequence[int]], options: TrainOptions
) -> list[torch.Tensor]:
    """What predicts each token of the answers: one (tokens, V) each."""
    from pv.vecstore.models.logprobs import collate, decision_logits, full_logits

    batch = collate([row.context for row in part], [[answer] for answer in answers])
    found = (decision_logits if options.frozen_context else full_logits)(model, batch)
    return list(found.split([len(answer) for answer in answers]))


def _logps(logits: torch.Tensor, answer: Sequence[int]) -> torch.Tensor:
    """(T, V) to the log-probabilities of the answer's tokens, (T,)."""
    import torch

    targets = torch.tensor(answer, device=logits.device)[:, None]
    return logits.gather(-1, targets)[:, 0] - torch.logsumexp(logits, -1)


def _total(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return reduce(add, (part.sum() for part in parts))


def _count(part: slice, row: Encoded) -> int:
    return len(range(*part.indices(len(row.chosen))))


def _key(row: Encoded) -> Key:
    return row.context, row.chosen
