"""A rank-one edit of one MLP's last projection, in closed form: ROME, Meng et al. 2022, arXiv:2202.05262, eq. 2.

    W' = W + (v* - W k*) (C^-1 k*)^T / ((C^-1 k*)^T k*)

k* is what the projection is given where the behaviour decides, v* what it is to give there instead, and C the second
moment of what it is given on neutral text. Of all changes that take k* to v* it is the one that moves neutral text
least: it minimises trace(D C D^T). C is regularised by a small share of its mean diagonal, since a few thousand tokens
do not fill a space of a few thousand dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.activations.hooks import captured
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.probe.edit_places import Projection
from pv.vecstore.train.stretches import differing

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

__all__ = [
    "RIDGE",
    "Decided",
    "RankOne",
    "decided",
    "key_at",
    "padded",
    "rank_one",
    "second_moment",
    "undecided",
]

F64 = NDArray[np.float64]
RIDGE = 1e-3
"""Of the mean diagonal of C, added to its diagonal."""
TOKENS = 1 << 11  # in a batch, padding included


@dataclass(frozen=True, slots=True, eq=False)
class RankOne:
    """A change of a matrix (out, in): left right^T."""

    left: F64  # (out,)
    right: F64  # (in,)

    @property
    def norm(self) -> float:
        return float(np.linalg.norm(self.left) * np.linalg.norm(self.right))

    def matrix(self) -> torch.Tensor:
        import torch

        return torch.from_numpy(np.outer(self.left, self.right))


def rank_one(weight: F64, key: F64, value: F64, moment: F64, *, ridge: float = RIDGE) -> RankOne:
    """The change of `weight` (out, in) that takes `key` (in,) to `value` (out,). Raises DataError for a key of 0."""
    if not key.any():
        raise DataError(
            "the key is 0: nothing reaches this layer's projection there", hint="try another layer"
        )
    regular = moment + ridge * np.trace(moment) / len(moment) * np.eye(len(moment))
    direction = np.linalg.solve(regular, key)
    return RankOne(value - weight @ key, direction / (direction @ key))


@dataclass(frozen=True, slots=True)
class Decided:
    """A row as one sequence, without its answer's last token. The token `at` predicts the first one of `targets`.

    `begins`: the token at which the behaviour decides; of a row to learn from it is `at`.
    """

    tokens: tuple[int, ...]
    begins: int
    at: int
    targets: tuple[int, ...]


def decided(row: Encoded) -> Decided:
    """The targets are the tokens in which chosen differs from rejected; all of chosen without a rejected answer."""
    part = slice(0, len(row.chosen)) if row.rejected is None else differing(row.chosen, row.rejected)[0]
    at = len(row.context) - 1 + part.start
    return Decided((*row.context, *row.chosen[:-1]), at, at, row.chosen[part])


def undecided(row: Encoded, opening: int) -> Decided:
    """A neutral answer: the targets are what follows its opening."""
    begins = len(row.context) - 1
    return Decided((*row.context, *row.chosen[:-1]), begins, begins + opening, row.chosen[opening:])


def padded(rows: Sequence[Decided]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and what of them is real, (B, T) each, padded at the right."""
    import torch

    width = max(len(row.tokens) for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.int64)
    real = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row.tokens)] = torch.tensor(row.tokens)
        real[i, : len(row.tokens)] = 1
    return ids, real


def key_at(model: PreTrainedModel, place: Projection, rows: Sequence[Decided]) -> F64:
    """The mean of what the projection is given where each row decides: (in,)."""
    total = np.zeros(place.matrix.shape[1])
    for part, given, _ in _given(model, place, rows):
        for i, row in enumerate(part):
            total += given[i, row.begins].double().numpy()
    return total / len(rows)


def second_moment(model: PreTrainedModel, place: Projection, rows: Sequence[Decided]) -> tuple[F64, int]:
    """C, the mean of k k^T over every token, (in, in); and over how many."""
    moment, count = np.zeros((place.matrix.shape[1],) * 2), 0
    for _, given, real in _given(model, place, rows):
        keys = given[real.bool()].double().numpy()
        moment += keys.T @ keys
        count += len(keys)
    return moment / count, count


def _given(
    model: PreTrainedModel, place: Projection, rows: Sequence[Decided]
) -> Iterator[tuple[list[Decided], torch.Tensor, torch.Tensor]]:
    """Rows, what the projection is given for them (B, T, in), and which of it is real (B, T): by length."""
    import torch

    left = sorted(rows, key=lambda row: len(row.tokens))
    site = f"{place.name}:input"
    while left:
        count = 1
        while count < len(left) and (count + 1) * len(left[count].tokens) <= TOKENS:
            count += 1
        part, left = left[:count], left[count:]
        ids, real = padded(part)
        with torch.no_grad(), captured(model, [site]) as seen:
            model(input_ids=ids, attention_mask=real, use_cache=False, logits_to_keep=1)
        yield part, seen[site].float(), real
