"""How much of a behaviour's shift a graft has: the share, with the rows' interval, and the sets of heads to graft."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from pv.registry.errors import UsageError
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.head_change import generator
from pv.vecstore.probe.parts import Part, Parts

__all__ = ["GRID", "grid", "halves", "random_set", "recovered"]

GRID = (0.0, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 1.0)  # of all heads; at least one
RESAMPLES = 10_000
TRIES = 100


def recovered(
    graft: ArrayLike, a: ArrayLike, b: ArrayLike, *, seed: int = 0, level: float = 0.95
) -> Interval:
    """mean(graft − a) / mean(b − a) of (n,) margins, rows resampled together. Raises UsageError for fewer than 2.

    Resamples in which the shift has the other sign say nothing of a share, and are left out.
    """
    before = np.asarray(a, np.float64)
    pair = np.stack([np.asarray(graft, np.float64) - before, np.asarray(b, np.float64) - before])
    n = pair.shape[1]
    if n < 2 or not np.isfinite(pair).all():
        raise UsageError("a share needs finite margins of at least 2 rows")
    drawn = np.random.Generator(np.random.Philox(key=seed % 2**64)).integers(n, size=(RESAMPLES, n))
    part, whole = pair[:, drawn].mean(-1)
    same = whole * np.sign(pair[1].mean()) > 0
    mean = float(pair[0].mean() / pair[1].mean()) if same.any() else float("nan")
    if not same.any():
        raise UsageError("the shift is 0 on every row: there is nothing to recover")
    low, high = np.quantile(part[same] / whole[same], [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean, float(low), float(high), n, level)


def grid(heads: int, core: int) -> list[int]:
    """Numbers of heads to graft, rising, the core's and all among them."""
    return sorted({core, *(min(heads, max(1, round(share * heads))) for share in GRID)})


def halves(n: int, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers to rank on, and to test on; the latter has one more where n is odd."""
    order = generator(seed, "halves").permutation(n).tolist()
    return sorted(order[: n // 2]), sorted(order[n // 2 :])


def random_set(parts: Parts, chosen: Sequence[Part], seed: int, draw: int) -> list[Part]:
    """As many heads of each layer as `chosen` has, drawn evenly, which read as many keys and values; not `chosen`
    itself, where there is any other set."""
    numbers = generator(seed, f"random heads {draw}")
    found: list[Part] = []
    for _ in range(TRIES):
        found = [part for at in parts.attention for part in _drawn(numbers, parts, chosen, at.layer)]
        if set(found) != set(chosen):
            break
    return found


def _drawn(numbers: np.random.Generator, parts: Parts, chosen: Sequence[Part], layer: int) -> list[Part]:
    """Another group takes the place of each, and any of its heads those of a group's chosen ones."""
    groups: dict[int | None, list[Part]] = {}
    for part in parts.heads:
        if part.layer == layer:
            groups.setdefault(part.group, []).append(part)
    counts = [sum(part in chosen for part in heads) for heads in groups.values()]
    others = [list(groups.values())[i] for i in numbers.permutation(len(groups))]
    picked = [
        heads[i]
        for heads, count in zip(others, counts, strict=True)
        for i in numbers.permutation(len(heads))[:count]
    ]
    return sorted(picked, key=lambda part: part.index or 0)
