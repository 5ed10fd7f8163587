"""Does one change carry over to re-worded prompts further than another? And at which strength are two comparable?

    transfer = effect on the paraphrases / effect on the rows that they re-word

Several paraphrases of one row are no rows of their own: they are averaged, and rows are resampled whole, with their
paraphrases, for both changes together. So the interval of the difference is a paired one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.statistics import Interval, bootstrap

__all__ = ["Claim", "by_row", "claimed", "originals", "scale_for", "transfer"]

F64 = NDArray[np.float64]
Verdict = Literal["held", "did not hold", "inconclusive"]
RESAMPLES = 10_000
LEVEL = 0.95


def originals(paraphrases: Rows, rows: Rows) -> list[int]:
    """Of each paraphrase the row that it re-words: the one with the same answers. Raises DataError for none."""
    known = {(row.chosen.strip(), (row.rejected or "").strip()): i for i, row in enumerate(rows)}
    found = []
    for i, row in enumerate(paraphrases):
        at = known.get((row.chosen.strip(), (row.rejected or "").strip()))
        if at is None:
            raise DataError(
                f"{paraphrases.where(i)}: no row of {rows.source} has these answers, so it re-words none of them",
                hint="a paraphrase has another prompt, and the answers of a held-out row as they are",
            )
        if paraphrases[i].prompt == rows[at].prompt:
            raise DataError(
                f"{paraphrases.where(i)}: the prompt is that of the held-out row itself",
                hint="word it in another way, or leave this row out",
            )
        found.append(at)
    return found


def by_row(effects: ArrayLike, of: Sequence[int]) -> tuple[list[int], F64]:
    """Which rows have paraphrases, in order, and the mean effect on those of each."""
    values, at = np.asarray(effects, np.float64), np.asarray(of)
    rows = sorted(set(of))
    return rows, np.array([values[at == row].mean() for row in rows])


def transfer(reworded: F64, original: F64, *, seed: int = 0) -> Interval | None:
    """Of (n,) effects on rows, each with the mean of its paraphrases; None where the original effect is not sure."""
    if len(original) < 2 or bootstrap(original, seed=seed, level=LEVEL).low <= 0:
        return None
    drawn = _drawn(len(original), seed)
    return _interval(
        float(reworded.mean() / original.mean()), _shares(reworded, original, drawn), len(original)
    )


@dataclass(frozen=True, slots=True)
class Claim:
    """That the broad change carries over further: `difference` is its transfer minus the edit's."""

    verdict: Verdict
    difference: Interval | None
    why: str


def claimed(
    broad: tuple[F64, F64], narrow: tuple[F64, F64], *, seed: int = 0, names: tuple[str, str]
) -> Claim:
    """Each as (mean effect on paraphrases, effect on the row), by row."""
    for name, (_, original) in zip(names, (broad, narrow), strict=True):
        if len(original) < 2 or bootstrap(original, seed=seed, level=LEVEL).low <= 0:
            return Claim(
                "inconclusive", None, f"{name} has no effect above 0 for certain on the rows themselves"
            )
    drawn = _drawn(len(broad[0]), seed)
    each = _shares(*broad, drawn) - _shares(*narrow, drawn)
    means = [float(reworded.mean() / original.mean()) for reworded, original in (broad, narrow)]
    found = _interval(means[0] - means[1], each, len(broad[0]))
    if found.low > 0:
        return Claim("held", found, f"{names[0]} carries over further")
    if found.high < 0:
        return Claim("did not hold", found, f"{names[1]} carries over further")
    return Claim("inconclusive", found, "the interval of the difference includes 0")


def scale_for(strengths: Sequence[float], effects: Sequence[float], wanted: float) -> tuple[float, float]:
    """The strength at which `wanted` is reached, and the effect there, read off between two measured ones.

    The smallest that reaches it; where none does, the one with the largest effect. 0 has effect 0.
    """
    points = [(0.0, 0.0), *sorted(zip(strengths, effects, strict=True))]
    for (low, below), (high, above) in pairwise(points):
        if below < wanted <= above:
            return low + (high - low) * (wanted - below) / (above - below), wanted
    return max(points[1:], key=lambda one: (one[1], -one[0]))


def _drawn(n: int, seed: int) -> NDArray[np.int64]:
    return np.random.Generator(np.random.Philox(key=seed % 2**64)).integers(n, size=(RESAMPLES, n))


def _shares(reworded: F64, original: F64, drawn: NDArray[np.int64]) -> F64:
    """NaN where the resampled effect is not above 0."""
    below = original[drawn].mean(1)
    return np.where(below > 0, reworded[drawn].mean(1) / np.where(below > 0, below, 1), np.nan)


def _interval(mean: float, values: F64, n: int) -> Interval:
    low, high = np.nanquantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(mean, float(low), float(high), n, LEVEL)
