"""How many examples change behaviour? 1 to 200, in four epochs, and in the same number of steps for all."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from examples.experiments import figures, measured
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import drawn, eight, persona, persona_folder, shipped
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.figure import Figure

    from pv.vecstore.data.rows import Rows

TITLE = "How many examples change behaviour"
QUESTION = "From how many rows on does a behaviour show on prompts it was not trained on?"
HOW = (
    "Training rows are drawn by lot, 1 to 200 of them, the fewer being the first of the more. Four epochs "
    "mean more steps for more rows; so each is also trained for the same 12 steps, where only the rows differ. "
    "pirate is an opening of the answer that always reads the same; listening has 67 rows, each with an answer of its "
    "own; the sets of Yes/No questions ask for an attitude, as often by Yes as by No."
)
LEGEND = {
    "rows won": "held-out rows where the wanted answer is the likelier one; beside it, of the base",
    "replies": "greedy replies that show the behaviour, by the rule in the file of rows",
    "damage": "log-likelihood that plain text lost, nats a token; below 0 gained",
}
COUNTS = (1, 5, 10, 20, 50, 200)
STEPS = 12
PERSONA = ("agreeableness", "interest-in-science")
EPOCHS, SAME = "4 epochs", f"{STEPS} steps"


def cases(plan: Plan) -> list[Case]:
    found = []
    for seed in range(plan.seeds):
        for name, rows, held in _sets(plan):
            for count in (1, 5, 50) if plan.quick else COUNTS:
                if count > len(rows):
                    continue
                picked = drawn(rows, count, seed=seed)
                for arm in (EPOCHS,) if plan.quick else (EPOCHS, SAME):
                    values = {"set": name, "rows": count, "trained": arm, "seed": seed}
                    given = {"epochs": 4} if arm == EPOCHS else _steps(count)
                    recipe = Recipe(picked, options(seed, quick=plan.quick, **given))
                    found.append(Case(values, (recipe,), (held,)))
    return found


def _sets(plan: Plan) -> Iterator[tuple[str, Rows, Rows]]:
    """The name of a set, the rows to draw from, and held-out ones."""
    yield ("pirate", *eight("pirate", quick=plan.quick))
    if not plan.quick:
        yield "listening", shipped("listening"), shipped("listening.heldout")[:12]
    folder = persona_folder()
    if folder is not None:
        for name in PERSONA[: 1 if plan.quick else None]:
            rows, held = persona(folder, name)
            yield name, rows, held[:8] if plan.quick else held


def _steps(count: int) -> dict[str, int]:
    """The same number for any number of rows."""
    batch = options(0, quick=False).batch
    return {"epochs": math.ceil(STEPS / math.ceil(count / batch)), "max_steps": STEPS}


def notes(plan: Plan) -> list[str]:
    if persona_folder() is not None:
        return []
    return [
        f"Without the Yes/No sets ({', '.join(PERSONA)}), and so without 200 rows: they are not part of pv. Name the "
        "folder that has them (github.com/anthropics/evals, persona/) in PV_PERSONA."
    ]


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    bench.lab.put([bench.vectors.get(case.recipes[0])])
    held = case.held[0]
    found = {"margins": measured.margins(bench.lab, held), "cost": measured.cost(bench.lab)}
    if held.reply is not None:  # an opening: it shows, or does not, within 24 tokens
        found["replies"] = measured.replies(bench.lab, held, 24)
    return found


def table(found: Found) -> Table:
    rows = []
    sets, arms = ([one for (one,) in found.each(what)] for what in ("set", "trained"))
    every = sorted(
        found.each("set", "trained", "rows"), key=lambda one: (sets.index(one[0]), arms.index(one[1]))
    )
    for name, arm, count in every:
        cells = [cell.found for cell in found.pick(set=name, trained=arm, rows=count)]
        margins = [cell["margins"] for cell in cells]
        shown = figures.shown([cell.get("replies", {}) for cell in cells])
        rows.append([
            name, arm, str(count), figures.said(figures.effect(margins), "+.2f"),
            figures.said(figures.wins(margins), ".0f", 100), f"{100 * figures.wins(margins, 'base').mean:.0f}",
            figures.said(shown, ".0f", 100),
            figures.said(figures.damage([cell["cost"] for cell in cells], text=True), "+.4f"),
        ])  # fmt: skip
    return Table(
        (
            "set",
            "trained",
            "rows",
            "effect, nats",
            "rows won, %",
            "base, %",
            "replies, %",
            "damage, text",
        ),
        rows,
    )


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    names = [name for (name,) in found.each("set")]
    arms = [arm for (arm,) in found.each("trained")]
    panels = figure.subplots(1, len(arms), sharey=True, squeeze=False)[0]
    counts = sorted(count for (count,) in found.each("rows"))
    for axes, arm in zip(panels, arms, strict=True):
        axes.set_xscale("log")
        for at, name in enumerate(names):
            cells = {count: found.pick(set=name, trained=arm, rows=count) for count in counts}
            won = [
                figures.wins([c.found["margins"] for c in cells[count]]) if cells[count] else None
                for count in counts
            ]
            line(axes, counts, won, name, at, factor=100, shift=4 * at)
            base = figures.wins([found.pick(set=name)[0].found["margins"]], "base").mean
            axes.plot([counts[0] * 0.72], [100 * base], f"C{at}>", markerfacecolor="none", clip_on=False)
        level(axes, 50, "even")
        ticks(axes, counts)
        axes.set(xlabel="training rows", title=f"Trained for {arm}; ▷ is the base", ylim=(-4, 104))
    panels[0].set_ylabel("held-out rows won, %")
