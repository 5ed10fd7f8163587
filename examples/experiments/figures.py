"""Figures of cells, with intervals over held-out rows, each a mean over seeds: a seed is no further row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, ratio, share
from pv.vecstore.evaluate.statistics import kept as share_kept

__all__ = ["damage", "effect", "kept", "kept_of", "said", "shown", "wins"]

F64 = NDArray[np.float64]


def effect(cells: Sequence[Mapping[str, Any]]) -> Interval:
    """Margin after minus that of the base, in nats."""
    return bootstrap(_effects(cells))


def wins(cells: Sequence[Mapping[str, Any]], which: str = "margin") -> Interval:
    """The share of rows with a margin above 0; `which` may be "base"."""
    return _share(_by_row(cells, lambda one: (np.array(one[which]) > 0).astype(np.float64)))


def shown(cells: Sequence[Mapping[str, Any]], which: str = "shown") -> Interval | None:
    """Of replies that show the behaviour."""
    there = [one for one in cells if one]
    return _share(np.mean([one[which] for one in there], axis=0)) if there else None


def damage(cells: Sequence[Mapping[str, Any]], *, text: bool) -> Interval:
    """Nats a token that plain text, or plain answers after their opening, lost."""
    first = cells[0]
    where = np.array(first["text"]) == text
    lost = np.mean([one["lost"] for one in cells], axis=0)[where]
    return ratio(lost, np.array(first["tokens"])[where])


def kept(merged: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]) -> Interval | None:
    """Effect of `merged` / effect of `alone`, over rows. None if alone there is none."""
    a, b = _effects(merged), _effects(alone)
    return share_kept(_margins(a), _margins(b), _margins(np.zeros(len(b)))) if len(b) > 1 else None


def kept_of(
    together: Sequence[Mapping[str, Any]], alone: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[Interval | None, float | None]:
    """The mean share that behaviours kept, with its interval over behaviours, and the least of any."""
    parts = []
    for name in dict.fromkeys(name for one in together for name in one["margins"]):
        here = [one["margins"][name] for one in together if name in one["margins"]]
        parts.append(kept(here, alone[name]))
    known = [part.mean for part in parts if part is not None]
    return _mean(parts), min(known, default=None)


def said(one: Interval | None, form: str = "+.1f", factor: float = 1) -> str:
    """`mean [low, high]` for a table."""
    if one is None:
        return "–"
    low, high = (format(factor * end, form) for end in (one.low, one.high))
    return f"{format(factor * one.mean, form)} [{low}, {high}]"


def _effects(cells: Sequence[Mapping[str, Any]]) -> F64:
    return _by_row(cells, lambda one: np.array(one["margin"]) - np.array(one["base"]))


def _by_row(cells: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], F64]) -> F64:
    """The rows of all sets in the cells, one after another, each with its mean over the cells that have it."""
    by_set: dict[str, list[F64]] = {}
    for one in cells:
        by_set.setdefault(one["rows"], []).append(of(one))
    return np.concatenate([np.mean(each, axis=0) for each in by_set.values()])


def _share(values: F64) -> Interval:
    """Wilson's, of as many rows as there are: seeds are no further rows."""
    found = share(round(float(values.sum())), len(values))
    return Interval(float(values.mean()), found.low, found.high, found.n)


def _margins(effects: F64) -> Margins:
    one = np.ones(len(effects))
    return Margins(effects, np.zeros(len(effects)), one, one)


def _mean(parts: Sequence[Interval | None]) -> Interval | None:
    known = [part.mean for part in parts if part is not None]
    return bootstrap(known) if len(known) > 1 else None
