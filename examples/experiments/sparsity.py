"""Does training that is pulled toward few changes compose better than plain training, cut down or not?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from examples.experiments import figures, measured
from examples.experiments.deltas import Deltas, encoded
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import eight
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe
from pv.vecstore.vectors.encodings import sparse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Sparsity-regularised training against plain"
QUESTION = (
    "Do vectors that move few weights keep their behaviours, and do they keep more of them when merged?"
)
HOW = (
    "l1: after every step of the optimizer each weight is pulled back toward the base by λ times the learning rate, "
    "and is exactly the base's where it does not keep moving (soft thresholding, the proximal step of an L1 penalty). "
    "largest: plain training, of which the largest share of every matrix is kept afterwards, as in pv's encoding "
    "sparse:p. Four behaviours are measured alone, and merged by add."
)
LEGEND = {
    "moved": "share of the trained weights that differ from the base's",
    "effect": "alone, mean over the behaviours' rows",
    "kept": "effect merged / effect alone, mean over the four, with its interval over them",
    "merged": "effect of the four merged, mean over the behaviours' rows",
    "damage": "log-likelihood that plain text lost under the four merged, nats a token",
}
NAMES = ("pirate", "doubt", "topic", "sir")
PLAIN, L1, LARGEST = "plain", "l1", "largest"
ARMS = (
    (PLAIN, None), (L1, 0.1), (L1, 0.3), (L1, 0.6), (L1, 1.0), (LARGEST, 0.5), (LARGEST, 0.2), (LARGEST, 0.05),
    (LARGEST, 0.01),
)  # fmt: skip


def cases(plan: Plan) -> list[Case]:
    names, arms = (NAMES[:2], (ARMS[0], ARMS[2], ARMS[6])) if plan.quick else (NAMES, ARMS)
    found = []
    for seed in range(plan.seeds):
        sets = [eight(name, quick=plan.quick) for name in names]
        for arm, strength in arms:
            l1 = strength if arm == L1 and strength else 0.0
            recipes = tuple(Recipe(rows, options(seed, quick=plan.quick), l1) for rows, _ in sets)
            values = {"training": arm, "strength": strength, "behaviours": " + ".join(names), "seed": seed}
            found.append(Case(values, recipes, tuple(held for _, held in sets)))
    return found


def notes(plan: Plan) -> list[str]:
    return []


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    names, strength = case.values["behaviours"].split(" + "), case.values["strength"]
    vectors = [bench.vectors.get(recipe) for recipe in case.recipes]
    if case.values["training"] == LARGEST:
        vectors = [encoded(deltas, sparse, share=strength)[0] for deltas in vectors]
    alone = {}
    for name, deltas, rows in zip(names, vectors, case.held, strict=True):
        bench.lab.put([deltas])
        alone[name] = measured.margins(bench.lab, rows)
    moved = [
        sum(int(np.count_nonzero(d)) for d in deltas.values()) / _trained(bench, vectors)
        for deltas in vectors
    ]
    return {"alone": alone, "moved": moved, **measured.merged(bench.lab, "add", names, vectors, case.held)}


def _trained(bench: Bench, vectors: list[Deltas]) -> int:
    """How many weights might have moved: of all tensors that any of the vectors moves."""
    return sum(bench.lab.weights[name].numel() for name in {name for deltas in vectors for name in deltas})


def _figures(found: Found, arm: str, strength: float | None) -> dict[str, Any]:
    cells = [cell.found for cell in found.pick(training=arm, strength=strength)]
    alone = {name: [cell["alone"][name] for cell in cells] for name in cells[0]["alone"]}
    return {
        "moved": float(np.mean([cell["moved"] for cell in cells])),
        "alone": figures.effect([one for each in alone.values() for one in each]),
        "merged": figures.effect([one for cell in cells for one in cell["margins"].values()]),
        "kept": figures.kept_of(cells, alone)[0],
        "damage": figures.damage([cell["cost"] for cell in cells], text=True),
    }


def table(found: Found) -> Table:
    rows = []
    for arm, strength in found.each("training", "strength"):
        one = _figures(found, arm, strength)
        words = {PLAIN: PLAIN, L1: f"l1, λ {strength}", LARGEST: f"largest {100 * (strength or 0):g} %"}[arm]
        rows.append([
            words, f"{100 * one['moved']:.1f} %", figures.said(one["alone"]), figures.said(one["kept"], ".0f", 100),
            figures.said(one["merged"]), figures.said(one["damage"], "+.4f"),
        ])  # fmt: skip
    return Table(("training", "moved", "effect, nats", "kept, %", "merged, nats", "damage, text"), rows)


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    left, right = figure.subplots(1, 2)
    plain = _figures(found, PLAIN, None)
    words = {L1: "l1 while training", LARGEST: "largest kept afterwards"}
    for axes in (left, right):
        axes.set(xscale="log", xlabel="weights that differ from the base's, %")
    for at, arm in enumerate((L1, LARGEST)):
        strengths = [strength for one, strength in found.each("training", "strength") if one == arm]
        figures = sorted([plain, *(_figures(found, arm, s) for s in strengths)], key=lambda one: one["moved"])
        moved = [100 * one["moved"] for one in figures]
        line(left, moved, [one["alone"] for one in figures], words[arm], at)
        line(right, moved, [one["kept"] for one in figures], words[arm], at, factor=100)
    level(left, 0, "no effect")
    level(left, plain["alone"].mean, "plain")
    level(right, 100, "as alone")
    left.set(title="Behaviour alone", ylabel="effect on held-out rows, nats")
    count = len(found.cells[0].values["behaviours"].split(" + "))
    right.set(title=f"Kept of {count} merged by add", ylabel="effect merged / effect alone, %")
    for axes in (left, right):
        low, high = axes.get_xlim()
        ticks(axes, [place for place in (0.1, 0.3, 1, 3, 10, 30, 100) if low <= place <= high])
