"""What an experiment is. To add one: a module, and its name in NAMES of `__main__`.

A module with

    TITLE, QUESTION, HOW              words for the page: the question, and what was done to answer it
    LEGEND                            what the columns of its table are
    cases(plan) -> list[Case]         all that is to be measured
    notes(plan) -> list[str]          what a reader must know of this run: data that is not here, say
    measure(bench, case) -> dict      JSON: one of them
    table(found) -> Table
    draw(figure, found)               its plot
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from examples.experiments.vectors import Recipe, Vectors
from pv.vecstore.data.rows import Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from examples.experiments.lab import Lab

__all__ = ["Bench", "Case", "Cell", "Experiment", "Found", "Plan", "Table"]


@dataclass(frozen=True, slots=True)
class Plan:
    seeds: int = 3
    quick: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """`values` tell it apart from the others in a table; `recipes` and `held` are what it is made of."""

    values: Mapping[str, Any]
    recipes: tuple[Recipe, ...]
    held: tuple[Rows, ...]

    def to_json(self) -> dict[str, Any]:
        """All that decides it."""
        return {
            "values": dict(self.values),
            "recipes": [recipe.to_json() for recipe in self.recipes],
            "held": [rows.id for rows in self.held],
        }

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.values.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Bench:
    """What `measure` works with."""

    lab: Lab
    vectors: Vectors


@dataclass(frozen=True, slots=True)
class Cell:
    values: Mapping[str, Any]
    found: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """All cells of an experiment, in the order of its cases."""

    cells: Sequence[Cell]
    notes: Sequence[str] = ()

    def pick(self, **values: Any) -> list[Cell]:
        return [
            cell for cell in self.cells if all(cell.values[name] == value for name, value in values.items())
        ]

    def each(self, *names: str) -> Iterator[tuple[Any, ...]]:
        """The different values of these, in the order of the cells."""
        seen = dict.fromkeys(json.dumps([cell.values[name] for name in names]) for cell in self.cells)
        yield from (tuple(json.loads(one)) for one in seen)


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


class Experiment(Protocol):
    TITLE: str
    QUESTION: str
    HOW: str
    LEGEND: Mapping[str, str]

    def cases(self, plan: Plan) -> list[Case]: ...
    def notes(self, plan: Plan) -> list[str]: ...
    def measure(self, bench: Bench, case: Case) -> dict[str, Any]: ...
    def table(self, found: Found) -> Table: ...
    def draw(self, figure: Figure, found: Found) -> None: ...
