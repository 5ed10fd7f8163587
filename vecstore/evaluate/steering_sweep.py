"""What a sweep found: a steering term at one site after another, with one coefficient after another.

Everything is measured against the same model without the term. Effects are in nats, damage in nats a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pv.vecstore.evaluate.broken import broken_share, surely_above
from pv.vecstore.evaluate.damage import Damage, Neutral, damage
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect, share
from pv.vecstore.models.generate import Reply

__all__ = [
    "BREAKS",
    "FEWEST_ROWS",
    "LIMIT",
    "Break",
    "Cell",
    "Measured",
    "Place",
    "Suggestion",
    "Sweep",
    "cell_of",
    "halves",
    "suggested",
]

LIMIT = 0.05  # nats a token on plain text that a suggestion may cost
BREAKS = 0.5  # nats a token from which text counts as broken
FEWEST_ROWS = 4  # two in each half


@dataclass(frozen=True, slots=True)
class Place:
    """A site that is swept, and the layer that it is in, where its name says so."""

    site: str
    layer: int | None

    @property
    def words(self) -> str:
        """The number of a layer whose output it is; of anything else all of the name."""
        whole = self.layer is not None and self.site.endswith(f".{self.layer}")
        return str(self.layer) if whole else self.site


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of one model: on the rows, on the neutral set, and what it replied."""

    margins: Margins
    neutral: Neutral
    replies: Sequence[Reply]


@dataclass(frozen=True, slots=True)
class Cell:
    """One site and one coefficient.

    `wins`: the share of rows whose margin is above 0. `against`: the share whose margin moved the wrong way, down for a
    coefficient above 0 and up for one below. `first` and `second`: the effect on each half of the rows. `dose`: the
    mean over steered tokens of the norm of what is added, over that of the activation. `broken`: the share of replies
    that are, None if none were asked for; `broken_by` says by what text is broken here, if it is.
    """

    place: Place
    coefficient: float
    build: str
    effect: Interval
    first: Interval
    second: Interval
    wins: Interval
    against: Interval
    damage: Damage
    dose: float
    broken: Interval | None
    broken_by: tuple[str, ...]

    @property
    def is_broken(self) -> bool:
        return bool(self.broken_by)

    @property
    def cost(self) -> Interval | None:
        """Damage on plain text; on plain answers, if the neutral set has no text."""
        return self.damage.text or self.damage.answers

    def to_json(self) -> dict[str, Any]:
        return {
            "site": self.place.site,
            "layer": self.place.layer,
            "coefficient": self.coefficient,
            "build": self.build,
            **{key: getattr(self, key).ends() for key in ("effect", "first", "second", "wins", "against")},
            "damage": self.damage.to_json(),
            "dose": self.dose,
            "broken": _ends(self.broken),
            "broken_by": list(self.broken_by),
        }


@dataclass(frozen=True, slots=True)
class Break:
    """Where text breaks at a site, on one side of 0: the smallest coefficient, None if none of those swept does."""

    place: Place
    sign: int
    cell: Cell | None

    @property
    def words(self) -> str:
        """`8 (replies)`"""
        return f"{self.cell.coefficient:g} ({', '.join(self.cell.broken_by)})" if self.cell else ""

    def to_json(self) -> dict[str, Any]:
        return {
            "site": self.place.site,
            "layer": self.place.layer,
            "sign": self.sign,
            "coefficient": self.cell.coefficient if self.cell else None,
            "by": list(self.cell.broken_by) if self.cell else [],
        }


@dataclass(frozen=True, slots=True)
class Suggestion:
    """The cell with the largest effect on the first half of the rows, of those that cost at most the limit.

    Its effect is that on the other half, which had no say in the choice.
    """

    cell: Cell

    @property
    def effect(self) -> Interval:
        return self.cell.second

    def to_json(self) -> dict[str, Any]:
        cell = self.cell
        return {
            "site": cell.place.site,
            "layer": cell.place.layer,
            "coefficient": cell.coefficient,
            "build": cell.build,
            "chosen_by": cell.first.to_json(),
            "effect": cell.second.to_json(),
            "verdict": cell.second.verdict,
        }


@dataclass(frozen=True, slots=True)
class Sweep:
    """`margin`, `wins` and `broken` are those without the term. `limit`: what a suggestion may cost, nats a token."""

    commit: str
    name: str
    vector: str
    positions: str
    rule: str
    data: str
    data_id: str
    neutral: str
    neutral_id: str
    neutral_rows: int
    prompts: int
    max_tokens: int
    limit: float
    margin: Interval
    wins: Interval
    broken: Interval | None
    cells: tuple[Cell, ...]
    notes: tuple[str, ...] = ()
    set_in: str | None = None
    """The commit that set the suggestion, if that was asked for."""

    @property
    def rows(self) -> int:
        return self.margin.n

    @property
    def places(self) -> tuple[Place, ...]:
        return tuple(dict.fromkeys(cell.place for cell in self.cells))

    @property
    def coefficients(self) -> tuple[float, ...]:
        return tuple(sorted({cell.coefficient for cell in self.cells}))

    @property
    def cost_of(self) -> str:
        """What a cell's `cost` was measured on."""
        return "plain text" if any(cell.damage.text for cell in self.cells) else "plain answers"

    def cell(self, site: str, coefficient: float) -> Cell:
        """Raises KeyError for one that was not swept."""
        for cell in self.cells:
            if (cell.place.site, cell.coefficient) == (site, coefficient):
                return cell
        raise KeyError((site, coefficient))

    def at(self, place: Place) -> list[Cell]:
        """The cells of a site, by coefficient."""
        return sorted((cell for cell in self.cells if cell.place == place), key=lambda cell: cell.coefficient)

    @property
    def breaks(self) -> tuple[Break, ...]:
        """Of each site, for the coefficients above 0 and for those below, if there are any."""
        found = []
        for place in self.places:
            for sign in (1, -1):
                side = [cell for cell in self.at(place) if cell.coefficient * sign > 0]
                broken = [cell for cell in side if cell.is_broken]
                if side:
                    first = min(broken, key=lambda cell: abs(cell.coefficient), default=None)
                    found.append(Break(place, sign, first))
        return tuple(found)

    @property
    def suggestion(self) -> Suggestion | None:
        """None where no cell has an effect above 0 at that cost, on the first half of the rows."""
        return suggested(self.cells, self.limit)

    def with_set(self, commit: str) -> Sweep:
        return replace(self, set_in=commit)

    def to_json(self) -> dict[str, Any]:
        suggestion = self.suggestion
        return {
            **{key: getattr(self, key) for key in ("commit", "name", "vector", "positions", "rule")},
            **{key: getattr(self, key) for key in ("data", "data_id")},
            "n": self.rows,
            **{key: getattr(self, key) for key in ("neutral", "neutral_id", "neutral_rows")},
            **{key: getattr(self, key) for key in ("prompts", "max_tokens", "limit")},
            "margin": self.margin.ends(),
            "wins": self.wins.ends(),
            "broken": _ends(self.broken),
            "cells": [cell.to_json() for cell in self.cells],
            "breaks": [one.to_json() for one in self.breaks],
            "suggestion": suggestion.to_json() if suggestion else None,
            "set": self.set_in,
            "notes": list(self.notes),
        }


def cell_of(
    place: Place, coefficient: float, build: str, dose: float, after: Measured, before: Measured
) -> Cell:
    """What two measurements on the same rows, neutral set and prompts say. Raises UsageError for fewer than 4 rows."""
    lost = damage(after.neutral, before.neutral)
    moved = np.sign(coefficient) * (after.margins.margin - before.margins.margin)
    replies, known = broken_share(after.replies), broken_share(before.replies)
    by = ["replies"] if surely_above(replies, known) else []
    if any(one is not None and one.mean > BREAKS for one in (lost.text, lost.answers)):
        by.append("damage")
    first, second = (
        bootstrap((after.margins.margin - before.margins.margin)[part]) for part in halves(len(moved))
    )
    return Cell(
        place,
        coefficient,
        build,
        effect(after.margins, before.margins),
        first,
        second,
        share(int((after.margins.margin > 0).sum()), len(moved)),
        share(int((moved < 0).sum()), len(moved)),
        lost,
        dose,
        replies,
        tuple(by),
    )


def halves(rows: int) -> tuple[slice, slice]:
    """The rows that choose, and those that say what the choice is worth."""
    return slice(0, rows // 2), slice(rows // 2, None)


def suggested(cells: Sequence[Cell], limit: float) -> Suggestion | None:
    """The same cells and limit suggest the same: of equal effects the smaller dose."""
    fit = [
        cell
        for cell in cells
        if not cell.is_broken and cell.first.mean > 0 and cell.cost is not None and cell.cost.mean <= limit
    ]
    best = max(fit, key=lambda cell: (cell.first.mean, -cell.dose), default=None)
    return None if best is None else Suggestion(best)


def _ends(one: Interval | None) -> dict[str, float] | None:
    return one.ends() if one else None
