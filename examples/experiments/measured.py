"""What a cell holds, and the figures of many: intervals over rows, each row a mean over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.shown import shown
from pv.vecstore.evaluate.statistics import Interval, bootstrap, ratio, share
from pv.vecstore.evaluate.statistics import kept as share_kept

if TYPE_CHECKING:
    from collections.abc import Mapping

    from examples.experiments.lab import Lab

__all__ = ["cost", "damage", "effect", "kept", "kept_each", "margins", "replies", "said", "shown_share", "wins"]

Part = "Mapping[str, Any]"
F64 = NDArray[np.float64]


def margins(lab: Lab, rows: Rows) -> dict[str, Any]:
    """As the lab is now."""
    after, before = lab.margins(rows), lab.before(rows)
    return {"rows": rows.id, "margin": _list(after.margin), "base": _list(before.margin)}


def cost(lab: Lab) -> dict[str, Any]:
    after, before = lab.neutral(), lab.neutral_before()
    return {
        "lost": _list(before.rest - after.rest),
        "tokens": _list(before.rest_tokens),
        "text": _list(before.text),
    }


def replies(lab: Lab, rows: Rows, tokens: int) -> dict[str, Any]:
    """How many greedy replies show the behaviour, by the rule of the rows' file, and how many of the base's."""
    prompts = [row.prompt for row in rows]
    now, before = ([one.text for one in found] for found in (
        lab.replies(rows, tokens), lab.replies_before(rows, tokens)
    ))  # fmt: skip
    if rows.reply is None:
        return {}
    return {
        "shown": [int(one) for one in shown(rows.reply, prompts, now, before)],
        "base": [int(one) for one in shown(rows.reply, prompts, before, before)],
    }


def effect(cells: Sequence[Mapping[str, Any]]) -> Interval:
    """Margin after minus that of the base, in nats."""
    return _interval(_effects(cells))


def wins(cells: Sequence[Mapping[str, Any]], which: str = "margin") -> Interval:
    """The share of rows with a margin above 0; `which` may be "base"."""
    return _share(_by_row(cells, lambda one: (np.array(one[which]) > 0).astype(np.float64)))


def shown_share(cells: Sequence[Mapping[str, Any]], which: str = "shown") -> Interval | None:
    """Of replies that show the behaviour."""
    there = [one for one in cells if one]
    return _share(np.mean([one[which] for one in there], axis=0)) if there else None


def damage(cells: Sequence[Mapping[str, Any]], *, text: bool) -> Interval:
    """Nats a token that plain text, or plain answers after their opening, lost."""
    first = cells[0]
    where = np.array(first["text"]) == text
    lost = np.mean([one["lost"] for one in cells], axis=0)[where]
    return ratio(lost, np.array(first["tokens"])[where])


def kept(
    merged: Sequence[Mapping[str, Any]], alone: Sequence[Mapping[str, Any]]
) -> Interval | None:
    """Effect of `merged` / effect of `alone`, over rows. None if alone there is none."""
    a, b = _effects(merged), _effects(alone)
    return share_kept(_margins(a), _margins(b), _margins(np.zeros(len(b)))) if len(b) > 1 else None


def kept_each(parts: Sequence[Interval | None]) -> Interval | None:
    """The mean of shares that behaviours kept, and its interval over these; None if fewer than two are known."""
    known = [part.mean for part in parts if part is not None]
    return bootstrap(known) if len(known) > 1 else None


def said(one: Interval | None, form: str = "+.1f", factor: float = 1) -> str:
    """`mean [low, high]` for a table."""
    if one is None:
        return "–"
    low, high = (format(factor * end, form) for end in (one.low, one.high))
    return f"{format(factor * one.mean, form)} [{low}, {high}]"


def _effects(cells: Sequence[Mapping[str, Any]]) -> F64:
    return _by_row(cells, lambda one: np.array(one["margin"]) - np.array(one["base"]))


def _by_row(cells: Sequence[Mapping[str, Any]], of: Any) -> F64:
    """The rows of all sets in the cells, one after another, each with its mean over the cells that have it."""
    by_set: dict[str, list[F64]] = {}
    for one in cells:
        by_set.setdefault(one["rows"], []).append(of(one))
    return np.concatenate([np.mean(each, axis=0) for each in by_set.values()])


def _interval(values: F64) -> Interval:
    return bootstrap(values)


def _share(values: F64) -> Interval:
    """Wilson's, of as many rows as there are: seeds are no further rows."""
    found = share(round(float(values.sum())), len(values))
    return Interval(float(values.mean()), found.low, found.high, found.n)


def _margins(effects: F64) -> Margins:
    one = np.ones(len(effects))
    return Margins(effects, np.zeros(len(effects)), one, one)


def _list(values: F64) -> list[float]:
    return [round(float(value), 6) for value in values]
