"""Which learning rate? What is learnt, and what it costs elsewhere, from 1e-5 to 1e-3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from examples.experiments import figures, measured
from examples.experiments.deltas import norm
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import eight
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Which learning rate"
QUESTION = "At which learning rate is a behaviour learnt in 18 steps of 24 rows, before it costs elsewhere?"
HOW = (
    "Everything but the rate is as pv trains by default. A rate that is too low moves too little; one that is too high "
    "learns more than the behaviour, which shows in what plain answers, after their opening, and plain text lose."
)
LEGEND = {
    "rows won": "held-out rows where the wanted answer is the likelier one",
    "damage": "log-likelihood that plain answers after their first 16 tokens, and plain text, lost; below 0 gained",
    "norm": "of the vector, all tensors together",
}
RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
NAMES = ("pirate", "signoff", "shouting")


def cases(plan: Plan) -> list[Case]:
    names, rates = (NAMES[:1], (3e-5, 3e-4, 1e-3)) if plan.quick else (NAMES, RATES)
    found = []
    for seed in range(plan.seeds):
        for name in names:
            rows, held = eight(name, quick=plan.quick)
            for lr in rates:
                recipe = Recipe(rows, options(seed, quick=plan.quick, lr=lr))
                found.append(Case({"behaviour": name, "lr": lr, "seed": seed}, (recipe,), (held,)))
    return found


def notes(plan: Plan) -> list[str]:
    return []


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    vector = bench.vectors.get(case.recipes[0])
    bench.lab.put([vector])
    return {
        "margins": measured.margins(bench.lab, case.held[0]),
        "cost": measured.cost(bench.lab),
        "norm": norm(vector),
    }


def table(found: Found) -> Table:
    rows = []
    for name, lr in found.each("behaviour", "lr"):
        cells = [cell.found for cell in found.pick(behaviour=name, lr=lr)]
        margins, cost = [cell["margins"] for cell in cells], [cell["cost"] for cell in cells]
        rows.append([
            name, _word(lr), figures.said(figures.effect(margins)), figures.said(figures.wins(margins), ".0f", 100),
            figures.said(figures.damage(cost, text=False), "+.4f"),
            figures.said(figures.damage(cost, text=True), "+.4f"),
            f"{np.mean([cell['norm'] for cell in cells]):.2f}",
        ])  # fmt: skip
    return Table(
        ("behaviour", "rate", "effect, nats", "rows won, %", "damage, answers", "damage, text", "norm"), rows
    )


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    left, right = figure.subplots(1, 2)
    rates = [lr for (lr,) in found.each("lr")]
    for axes in (left, right):
        axes.set(xscale="log", xlabel="learning rate")
    right.set_yscale("symlog", linthresh=0.01)
    for at, (name,) in enumerate(found.each("behaviour")):
        cells = [[cell.found for cell in found.pick(behaviour=name, lr=lr)] for lr in rates]
        effects = [figures.effect([one["margins"] for one in each]) for each in cells]
        lost = [figures.damage([one["cost"] for one in each], text=True) for each in cells]
        line(left, rates, effects, name, at, shift=4 * at)
        line(right, rates, lost, name, at, shift=4 * at)
    level(left, 0, "no effect")
    level(right, 0, "as the\nbase")
    left.set(title="Learnt", ylabel="effect on held-out rows, nats")
    right.set(title="Lost on plain text", ylabel="damage, nats a token")
    for axes in (left, right):
        ticks(axes, rates, [_word(lr) for lr in rates])


def _word(lr: float) -> str:
    return f"{lr:.0e}".replace("e-0", "e-")
