"""Contexts that behave alike share a model: a model costs bytes too.

Greedy agglomeration: while two of the classes cost fewer bits as one, the two that save most become one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOST", "bits", "merge"]

MOST = 255
MODEL_BITS = 8.0
TOKEN_BITS = 18.0  # of a token in a model, about, once zstd has seen it
MOST_GROUPS = 1024  # which bounds the time: it grows with their third power
FEW = 256  # contexts seen less often go with the one before

F64 = NDArray[np.float64]
Counts = NDArray[np.int64]


def bits(counts: Counts) -> F64:
    """(..., tokens) -> (...): what it costs to code such tokens under a model of their own, with the model."""
    n = counts.astype(np.float64)
    total = n.sum(axis=-1)
    code = _n_log_n(total) - _n_log_n(n).sum(axis=-1)
    cost: F64 = code + MODEL_BITS + TOKEN_BITS * (n > 0).sum(axis=-1)
    return cost


def merge(counts: Counts) -> NDArray[np.uint8]:
    """(contexts, tokens) how often -> (contexts,) the class of each, from 0 on, at most MOST classes."""
    few, seen = FEW, counts.sum(axis=1)
    group = _rough(seen, few)  # (contexts,)
    while int(group.max()) >= MOST_GROUPS:
        few *= 2
        group = _rough(seen, few)
    tokens = np.flatnonzero(counts.any(axis=0))
    table = np.zeros((int(group.max()) + 1, len(tokens)), np.int64)
    np.add.at(table, group, counts[:, tokens])
    owner = np.arange(len(table))
    alone = bits(table)
    saved = np.full((len(table), len(table)), -np.inf)
    for i in range(len(table)):
        saved[i, :i] = alone[i] + alone[:i] - bits(table[i] + table[:i])
    live = np.ones(len(table), bool)
    while live.sum() > 1:
        i, j = divmod(int(saved.argmax()), len(table))
        if saved[i, j] <= 0 and live.sum() <= MOST:
            break
        owner[owner == i] = j
        live[i] = False
        saved[i], saved[:, i] = -np.inf, -np.inf
        table[j] += table[i]
        alone[j] = bits(table[j])
        with_j = np.where(live, alone + alone[j] - bits(table + table[j]), -np.inf)
        saved[j, :j], saved[j + 1 :, j] = with_j[:j], with_j[j + 1 :]
    names = np.unique(owner, return_inverse=True)[1]
    return names[group].astype(np.uint8)


def _rough(seen: Counts, few: int) -> NDArray[np.intp]:
    """Neighbours go together until they were seen often enough to be judged; what is left joins the last."""
    group = np.empty(len(seen), np.intp)
    number = held = 0
    for i, n in enumerate(seen):
        group[i] = number
        held += int(n)
        if held >= few:
            number, held = number + 1, 0
    if held < few and number:
        group[group == number] = number - 1
    return group


def _n_log_n(n: F64) -> F64:
    product: F64 = n * np.log2(np.maximum(n, 1))
    return product
