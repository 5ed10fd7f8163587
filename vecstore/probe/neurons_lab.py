"""The parts of a probe of neurons, each measured when it is asked for: `measured(part, lab)`.

The model is made ready for the first part that is not known; where all are, it is not loaded at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import DataError
from pv.vecstore.data.rows import Rows
from pv.vecstore.probe import neurons_measure as measure
from pv.vecstore.probe.neurons_found import SCOPES, SHARED
from pv.vecstore.probe.neurons_measure import GRID, Contrast, contrast
from pv.vecstore.probe.neurons_pass import deciding, openings
from pv.vecstore.probe.neurons_rank import METHODS, matched, ranking
from pv.vecstore.probe.neurons_sites import Layout, Scope, layout_of

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = [
    "FEWEST",
    "MOST",
    "MOST_DRAWS",
    "RANKS",
    "Lab",
    "Part",
    "Settings",
    "Sides",
    "grid",
    "measured",
    "parts_in_all",
]

FEWEST = 8  # four in each half
MOST, MOST_DRAWS = 48, 50  # rows and random rankings whose margins one record has room for
RANKS = 10  # directions at most
SHOWN = 20  # neurons of the shared ranking that are named
OVERLAPS = (10, 50, 200)
Part = Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True, slots=True)
class Sides:
    """A's model; inside `swapped()` it has B's weights."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    swapped: Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Settings:
    """`draws` of every random ranking, `steps` of integrated gradients."""

    seed: int = 0
    draws: int = 5
    steps: int = 5

    def to_json(self) -> dict[str, Any]:
        return {"seed": self.seed, "draws": self.draws, "steps": self.steps, "grid": list(GRID)}


def grid(size: int) -> list[int]:
    """The k up to a number of neurons."""
    return [k for k in GRID if k <= size]


@dataclass
class Lab:
    """Rows in an order that the seed gives: the first half chooses, the second says what the choice is worth."""

    open: Callable[[], Sides]
    rows: Rows
    neutral: Rows
    settings: Settings
    _kept: dict[str, torch.Tensor] = field(default_factory=dict)

    @cached_property
    def sides(self) -> Sides:
        return self.open()

    @cached_property
    def layout(self) -> Layout:
        return layout_of(self.sides.model)

    @cached_property
    def _decided(self) -> tuple[list[Any], int]:
        found, kept = deciding(self.sides.model, self.sides.tokenizer, self.rows)
        if len(found) < FEWEST:
            raise DataError(
                f"{self.rows.source}: in {len(found)} rows the two answers differ in a token: too few for this probe",
                hint=f"at least {FEWEST}: half of them choose, the others say what the choice is worth",
            )
        generator = np.random.Generator(np.random.Philox(key=self.settings.seed % 2**64))
        return [found[i] for i in generator.permutation(len(found))], len(self.rows) - len(kept)

    @cached_property
    def every(self) -> Contrast:
        self.layout  # noqa: B018  # what it refuses is said before anything runs
        return self._contrast(self._decided[0])

    @cached_property
    def first(self) -> Contrast:
        return self._contrast(self._decided[0][: len(self._decided[0]) // 2])

    @cached_property
    def second(self) -> Contrast:
        return self._contrast(self._decided[0][len(self._decided[0]) // 2 :])

    @cached_property
    def unrelated(self) -> Contrast:
        return self._contrast(openings(self.sides.model, self.sides.tokenizer, self.neutral))

    def _contrast(self, rows: Sequence[Any]) -> Contrast:
        return contrast(self.sides.model, self.sides.swapped, self.layout, rows)

    @cached_property
    def gradient(self) -> torch.Tensor:
        """(n, D), in A."""
        return self.every.runs.gradient(self.layout.all)[0]

    def scope(self, name: str, best: int) -> Scope:
        scopes = {"layer": self.layout.one(best), "late": self.layout.late, "all": self.layout.all}
        return scopes[name]

    def scores(self, method: str, scope: Scope) -> torch.Tensor:
        """(n, D) by which neurons are ranked; of a random ranking those of the one that it is like."""
        if method in ("delta*grad", "random"):
            return self.every.delta * self.gradient
        if method == "ig":
            key = f"{scope.start}:{scope.stop}"
            if key not in self._kept:
                self._kept[key] = measure.integrated(self.every, scope, self.settings.steps)
            return self._kept[key]
        return (self.every.delta if method == "delta" else self.gradient).abs()

    def rankings(self, method: str, scope: Scope, most: int, *, shared: bool) -> list[torch.Tensor]:
        """One, or of "random" one for every draw: (n, most), or (1, most) that all rows of the first half share."""
        scores, sizes = self.scores(method, scope), self.every.delta.abs()
        if shared:
            first = slice(0, len(self.first.runs))
            scores, sizes = scores[first].mean(0, keepdim=True), sizes[first].mean(0, keepdim=True)
        order = ranking(scores, scope, most, positive=method not in ("delta", "grad"))
        if method != "random":
            return [order]
        key = f"{self.settings.seed}:{scope.name}:{shared}"
        return [matched(order, sizes, scope, f"{key}:{draw}") for draw in range(self.settings.draws)]


def parts_in_all() -> int:
    return 2 + len(SCOPES) * (5 + len(METHODS) + len(SHARED))


def measured(part: Part, lab: Lab) -> dict[str, Any]:
    """Every part by its key: `part` measures what is not known yet, and notes it."""
    found = {"rows": part("rows", lambda: _rows(lab))}
    found["layers"] = part("layers", lambda: _layers(lab))
    best = int(np.argmax(found["layers"]))
    for name in SCOPES:
        for key, compute in _of_scope(lab, name, best, found).items():
            found[f"{name}:{key}"] = part(f"{name}:{key}", compute)
    return found


def _of_scope(lab: Lab, name: str, best: int, found: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    def of(do: Callable[[Lab, Scope, Any], Any], more: Any = None) -> Callable[[], Any]:
        return lambda: do(lab, lab.scope(name, best), more)

    return {
        "ceiling": of(_ceiling),
        **{f"row:{method}": of(_by_row, method) for method in METHODS},
        "iterative": of(_iterative),
        **{f"shared:{method}": of(_shared, method) for method in SHARED},
        "directions": of(_directions),
        "neutral": of(lambda lab, scope, _: _neutral(lab, scope, found[f"{name}:directions"])),
        "named": of(_named),
    }


def _rows(lab: Lab) -> dict[str, Any]:
    every, layout = lab.every, lab.layout
    return {
        "deeper": sum(one.depth > 0 for one in every.runs.rows),
        "left_out": lab._decided[1],
        "first": len(every.runs) // 2,
        "neutral": sum(bool(row.prompt) for row in lab.neutral),
        "layers": list(layout.layers),
        "widths": list(layout.widths),
        "without": list(layout.without),
        "a": measure.said(every.clean),
        "b": measure.said(every.source),
    }


def _layers(lab: Lab) -> list[float]:
    gradient = lab.gradient[: len(lab.first.runs)]
    return measure.one_layer(lab.first, gradient)


def _ceiling(lab: Lab, scope: Scope, _: Any) -> dict[str, Any]:
    return {
        "layers": list(scope.layers),
        "size": scope.size,
        "every": measure.ceiling(lab.every, scope),
        "second": measure.ceiling(lab.second, scope),
    }


def _by_row(lab: Lab, scope: Scope, method: str) -> list[dict[str, Any]]:
    ks = grid(scope.size)
    scores = lab.scores(method, scope) if method == "delta*grad" else None
    return [
        measure.swept(lab.every, order, ks, scores=scores)
        for order in lab.rankings(method, scope, ks[-1], shared=False)
    ]


def _iterative(lab: Lab, scope: Scope, _: Any) -> dict[str, Any]:
    return measure.iterated(lab.every, scope, measure.schedule(scope, grid(scope.size)[-1]))


def _shared(lab: Lab, scope: Scope, method: str) -> list[dict[str, Any]]:
    """ "fixed": the neurons of delta x gradient, each moved by the mean delta of the rows that chose."""
    ks = grid(scope.size)
    own = "delta*grad" if method == "fixed" else method
    values = lab.second.clean.activations + _mean_delta(lab) if method == "fixed" else None
    return [
        measure.swept(lab.second, order, ks, values=values)
        for order in lab.rankings(own, scope, ks[-1], shared=True)
    ]


def _directions(lab: Lab, scope: Scope, _: Any) -> list[dict[str, Any]]:
    ranks = range(1, min(RANKS, len(lab.first.runs), scope.size) + 1)
    return measure.directions(lab.first, lab.second, scope, ranks)


def _neutral(lab: Lab, scope: Scope, directions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    ks = grid(scope.size)
    own, random = (lab.rankings(method, scope, ks[-1], shared=True)[0] for method in ("delta*grad", "random"))
    best = measure.chosen_rank(directions)
    return measure.off_target(
        lab.unrelated,
        scope,
        ks,
        {"delta*grad": own, "fixed": own, "random": random},
        _mean_delta(lab),
        (lab.first, best["rank"], best["alpha"]),
    )


def _named(lab: Lab, scope: Scope, _: Any) -> dict[str, Any]:
    """The first of the shared ranking, and how many of them the other half would choose too."""
    most = min(scope.size, max(OVERLAPS))
    scores, cut = lab.every.delta * lab.gradient, len(lab.first.runs)
    one, other = (
        ranking(part.mean(0, keepdim=True), scope, most, positive=True)[0].tolist()
        for part in (scores[:cut], scores[cut:])
    )
    means = scores[:cut].mean(0)
    delta = _mean_delta(lab)
    return {
        "neurons": [[*lab.layout.place(i), float(delta[i]), float(means[i])] for i in one[:SHOWN] if i >= 0],
        "overlap": [
            [k, len(({*one[:k]} & {*other[:k]}) - {-1}) / k, k / scope.size] for k in OVERLAPS if k <= most
        ],
    }


def _mean_delta(lab: Lab) -> torch.Tensor:
    return lab.every.delta[: len(lab.first.runs)].mean(0)
