"""Which rows a step has, and which of them run at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.train.options import TrainOptions

__all__ = ["batches", "micro_batches"]


def batches(rows: int, options: TrainOptions, steps: int) -> Iterator[list[int]]:
    """Row numbers of each step: every row once an epoch, in an order drawn from (seed, epoch)."""
    given = 0
    for epoch in range(options.epochs_over(rows)):
        order = np.random.Generator(np.random.Philox(key=[options.seed % 2**64, epoch])).permutation(rows)
        for start in range(0, rows, options.batch):
            if given == steps:
                return
            yield [int(i) for i in order[start : start + options.batch]]
            given += 1


def micro_batches(
    rows: Sequence[Encoded],
    kind: Callable[[Encoded], int],
    size: Callable[[Encoded], int],
    most: int,
    processes: int = 1,
) -> Iterator[list[Encoded]]:
    """Split a step so that what runs at a time stays within `most` tokens: longest first, each kind by itself.

    A part is for all `processes` together: `most` is what each of them runs of it. 0: a row each.
    """
    kinds: dict[int, list[Encoded]] = {}
    for row in rows:
        kinds.setdefault(kind(row), []).append(row)
    for _, left in sorted(kinds.items()):
        left.sort(key=lambda row: -size(row))
        while left:
            count = processes * max(1, most // size(left[0]))
            yield left[:count]
            left = left[count:]
