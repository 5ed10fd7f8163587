"""What do 0, 25 and 50 % general data do to forgetting? Mixed in as rows, or as the base's own distribution."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from examples.experiments import figures, measured
from examples.experiments.deltas import scaled
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import choice, drawn, eight
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe
from pv.vecstore.train.general_set import general_set
from pv.vecstore.train.objective import OPENING
from pv.vecstore.train.options import HELD

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pv.vecstore.data.rows import Rows

TITLE = "General data against forgetting"
QUESTION = (
    "What do 0, 25 and 50 % of ordinary answers beside the behaviour's rows do to what else the model can?"
)
HOW = (
    "Six of the behaviour's rows a step, three epochs, and none, two or six ordinary answers in the same step: 0, "
    "25 or 50 % of its rows. As rows they are learnt like any other answer; as KL, training stays close to the base's "
    "own distribution of them. Everything is also measured with each vector scaled to the norm of the one that saw no "
    "general data: what a smaller vector spares is no merit of the data."
)
LEGEND = {
    "of tokens": "share of the tokens in the loss that are general, about",
    "damage": "log-likelihood that plain answers after their first 16 tokens, and plain text, lost at equal norm",
    "choices": "questions of general knowledge where the right answer is the likelier one, at equal norm",
    "norm": "of the vector, before it is scaled",
}
NAMES = ("pirate", "signoff")
OWN, EPOCHS = 6, 3  # rows of the behaviour a step
ARMS = (("none", 0), ("rows", 2), ("rows", 6), ("KL", 2), ("KL", 6))


def cases(plan: Plan) -> list[Case]:
    names, arms = (NAMES[:1], (ARMS[0], ARMS[2], ARMS[4])) if plan.quick else (NAMES, ARMS)
    found = []
    for seed in range(plan.seeds):
        for name in names:
            rows, held = eight(name, quick=plan.quick)
            plain = _recipe(rows, "none", 0, seed, plan)
            for kind, count in arms:
                recipe = _recipe(rows, kind, count, seed, plan)
                share = round(100 * count / (OWN + count))
                values = {"behaviour": name, "general": kind, "share": share, "seed": seed}
                found.append(Case(values, (recipe, plain), (held, choice(quick=plan.quick))))
    return found


def _recipe(rows: Rows, kind: str, count: int, seed: int, plan: Plan) -> Recipe:
    """`count` general rows beside six of the behaviour's, in every step."""
    given: dict[str, Any] = {"batch": OWN, "epochs": EPOCHS, "learn": "all", "hold": 0.0, "general": 0.0}
    if kind == "rows":
        given["batch"] = OWN + count
        rows = _mixed(rows, round(count / OWN * len(rows)), seed)
    elif kind == "KL":
        given |= {"general": HELD, "general_rows": count}
    if plan.quick:
        given |= {"epochs": 1, "max_steps": 2}
    return Recipe(rows, options(seed, quick=plan.quick, **given))


def _mixed(rows: Rows, count: int, seed: int) -> Rows:
    general = general_set()
    answers = replace(general, rows=tuple(row for row in general if row.prompt), lines=())
    return replace(rows, rows=(*rows.rows, *drawn(answers, count, seed=seed).rows), lines=())


def notes(plan: Plan) -> list[str]:
    return []


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    own = bench.vectors.get(case.recipes[0])
    size, equal = (bench.vectors.norm(recipe) for recipe in case.recipes)
    held, questions = case.held
    bench.lab.put([own])
    trained = {"margins": measured.margins(bench.lab, held), "cost": measured.cost(bench.lab)}
    bench.lab.put([scaled(own, equal / size)])
    return {
        "trained": trained,
        "equal": {"margins": measured.margins(bench.lab, held), "cost": measured.cost(bench.lab)},
        "choices": measured.margins(bench.lab, questions),
        "norm": size,
        "tokens": _tokens(bench, case.recipes[0]),
    }


def _tokens(bench: Bench, recipe: Recipe) -> float:
    """The share of general tokens among those that the loss is of."""
    answers = [(row, len(bench.lab.tokenizer(row.chosen)["input_ids"])) for row in recipe.rows]
    general = {row.chosen for row in general_set()}
    own = sum(count for row, count in answers if row.chosen not in general)
    mixed = sum(count for row, count in answers if row.chosen in general)
    if recipe.options.general:
        lengths = [len(bench.lab.tokenizer(row.chosen)["input_ids"]) for row in general_set()]
        steps = len(recipe.rows) / recipe.options.batch
        mixed = round((np.mean(lengths) - OPENING) * recipe.options.general_rows * steps)
    return mixed / (own + mixed)


def table(found: Found) -> Table:
    rows = []
    for name, kind, share in found.each("behaviour", "general", "share"):
        cells = [cell.found for cell in found.pick(behaviour=name, general=kind, share=share)]
        equal, choices = [cell["equal"] for cell in cells], [cell["choices"] for cell in cells]
        cost = [cell["cost"] for cell in equal]
        rows.append([
            name, kind, f"{share} %", f"{100 * np.mean([cell['tokens'] for cell in cells]):.0f} %",
            figures.said(figures.effect([cell["trained"]["margins"] for cell in cells])),
            figures.said(figures.effect([cell["margins"] for cell in equal])),
            figures.said(figures.damage(cost, text=False), "+.4f"),
            figures.said(figures.damage(cost, text=True), "+.4f"),
            f"{100 * figures.wins(choices).mean:.0f} % (base {100 * figures.wins(choices, 'base').mean:.0f} %)",
            f"{np.mean([cell['norm'] for cell in cells]):.2f}",
        ])  # fmt: skip
    return Table((
        "behaviour", "general", "of rows", "of tokens", "effect, nats", "at equal norm",
        "damage, answers", "damage, text", "choices", "norm",
    ), rows)  # fmt: skip


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    left, right = figure.subplots(1, 2)
    lines = [pair for pair in found.each("behaviour", "general") if pair[1] != "none"]
    for at, (name, kind) in enumerate(lines):
        every = found.each("behaviour", "general", "share")
        arms = [("none", 0), *((k, share) for n, k, share in every if (n, k) == (name, kind))]
        shares = [share for _, share in arms]
        cells = [
            [cell.found["equal"] for cell in found.pick(behaviour=name, general=k, share=share)]
            for k, share in arms
        ]
        effects = [figures.effect([one["margins"] for one in each]) for each in cells]
        lost = [figures.damage([one["cost"] for one in each], text=False) for each in cells]
        words = f"{name}, {'as rows' if kind == 'rows' else 'KL to the base'}"
        line(left, shares, effects, words, at, shift=50 * at)
        line(right, shares, lost, words, at, shift=50 * at)
    level(left, 0, "no effect")
    level(right, 0, "as the\nbase")
    left.set(title="Behaviour, at equal norm", ylabel="effect on held-out rows, nats")
    right.set(title="Lost on plain answers, at equal norm", ylabel="damage, nats a token")
    for axes in (left, right):
        axes.set_xlabel("general rows of a step, %")
        ticks(axes, [share for (share,) in found.each("share")])
