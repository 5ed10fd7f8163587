"""What a cell holds: of every row, so that figures of many cells can be taken over rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from examples.experiments.deltas import Deltas
from pv.registry.combine import Combine
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.shown import shown

if TYPE_CHECKING:
    from examples.experiments.lab import Lab

__all__ = ["cost", "margins", "merged", "replies"]


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


def merged(
    lab: Lab, rule: str, names: Sequence[str], vectors: Sequence[Deltas], held: Sequence[Rows]
) -> dict[str, Any]:
    """Each behaviour's margins under all of them together at weight 1, and what that costs."""
    lab.put(vectors if rule == "add" else [lab.merged(Combine.of(rule), vectors)])
    found = {name: margins(lab, rows) for name, rows in zip(names, held, strict=True)}
    return {"margins": found, "cost": cost(lab)}


def _list(values: NDArray[Any]) -> list[float]:
    return [round(float(value), 6) for value in values]
