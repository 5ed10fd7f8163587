"""Which construction of a vector composes, for 2, 4 and 8 behaviours, under `add` and under `ties`?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from examples.experiments import figures, measured
from examples.experiments.deltas import Deltas, minus, norm, scaled
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import EIGHT, eight, groups
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe, swapped
from pv.vecstore.train.options import HELD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from pv.vecstore.data.rows import Rows

TITLE = "Which construction composes"
QUESTION = "Of 2, 4 and 8 behaviours that are merged, how much does each keep, by how its vector was made?"
HOW = (
    "Eight behaviours that can hold at once, 24 rows each, six epochs. sft: likelihood of the whole answer. plain: "
    "that, and preference over the rejected answer. general: plain, with ordinary answers held to the base by KL. "
    "difference: only where the two answers differ is learnt, the rest is held. contrast: trained on the chosen "
    "answers minus trained on the rejected ones. Every vector is scaled to the norm that plain has for the same "
    "behaviour and seed, so that none wins by being small. add sums them up; ties is pv's with its defaults (20 % of "
    "each, the mean of those that agree). Kept is the effect merged divided by the effect alone."
)
LEGEND = {
    "alone": "effect of each behaviour alone, mean over behaviours",
    "kept": "mean over behaviours, with its interval over them; least: of any behaviour",
    "rows won": "held-out rows where the wanted answer is the likelier one, of all behaviours merged",
    "damage": "log-likelihood that plain answers after their first 16 tokens, and plain text, lost; below 0 gained",
}
EPOCHS = 6  # of every construction, so that none has more steps
PLAIN = {"learn": "all", "hold": 0.0, "general": 0.0}
CONSTRUCTIONS: dict[str, dict[str, Any]] = {
    "sft": {**PLAIN, "preference": 0.0},
    "plain": PLAIN,
    "general": {**PLAIN, "general": HELD},
    "difference": {"learn": "difference"},
    "contrast": {**PLAIN, "preference": 0.0},
}
RULES = ("add", "ties")
SIZES = (2, 4, 8)


def cases(plan: Plan) -> list[Case]:
    names = EIGHT[:2] if plan.quick else EIGHT
    sizes = [size for size in SIZES if size <= len(names)]
    found = []
    for seed in range(plan.seeds):
        for construction in ("plain", "difference") if plan.quick else CONSTRUCTIONS:
            for size in (1, *sizes):
                for group in groups(names, size):
                    sets = [eight(name, quick=plan.quick) for name in group]
                    recipes = tuple(r for rows, _ in sets for r in _recipes(construction, rows, seed, plan))
                    for rule in ("add",) if size == 1 else RULES:
                        values = {"construction": construction, "behaviours": " + ".join(group), "size": size,
                                  "rule": rule, "seed": seed}  # fmt: skip
                        found.append(Case(values, recipes, tuple(held for _, held in sets)))
    return found


def _recipes(construction: str, rows: Rows, seed: int, plan: Plan) -> tuple[Recipe, Recipe, Recipe]:
    """The vector, what is taken from it (of a contrast), and the one that has the norm to reach."""
    own = Recipe(rows, options(seed, quick=plan.quick, epochs=EPOCHS, **CONSTRUCTIONS[construction]))
    less = Recipe(swapped(rows), own.options) if construction == "contrast" else own
    return own, less, Recipe(rows, options(seed, quick=plan.quick, epochs=EPOCHS, **PLAIN))


def notes(plan: Plan) -> list[str]:
    return []


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    names = case.values["behaviours"].split(" + ")
    vectors = [
        _vector(bench, case.recipes[3 * at : 3 * at + 3], case.values["construction"] == "contrast")
        for at in range(len(names))
    ]
    return measured.merged(bench.lab, case.values["rule"], names, vectors, case.held)


def _vector(bench: Bench, recipes: Sequence[Recipe], contrast: bool) -> Deltas:
    own, less, plain = recipes
    found, wanted = bench.vectors.get(own), bench.vectors.norm(plain)
    if contrast:
        found = minus(found, bench.vectors.get(less))
    return scaled(found, wanted / (norm(found) if contrast else bench.vectors.norm(own)))


def _alone(found: Found, construction: str) -> dict[str, list[Any]]:
    cells = found.pick(construction=construction, size=1)
    each: dict[str, list[Any]] = {}
    for cell in cells:
        for name, margins in cell.found["margins"].items():
            each.setdefault(name, []).append(margins)
    return each


def table(found: Found) -> Table:
    rows = []
    made = [one for (one,) in found.each("construction")]
    every = sorted(found.each("construction", "size", "rule"), key=lambda one: (made.index(one[0]), one[1:]))
    for construction, size, rule in every:
        cells = [cell.found for cell in found.pick(construction=construction, rule=rule, size=size)]
        margins = [one for cell in cells for one in cell["margins"].values()]
        mean, least = figures.kept_of(cells, _alone(found, construction)) if size > 1 else (None, None)
        cost = [cell["cost"] for cell in cells]
        rows.append([
            construction, str(size), rule if size > 1 else "–", figures.said(figures.effect(margins)),
            figures.said(mean, ".0f", 100), "–" if least is None else f"{100 * least:.0f}",
            figures.said(figures.wins(margins), ".0f", 100),
            figures.said(figures.damage(cost, text=False), "+.4f"),
            figures.said(figures.damage(cost, text=True), "+.4f"),
        ])  # fmt: skip
    return Table((
        "construction", "behaviours", "rule", "effect, nats", "kept, %", "least, %", "rows won, %",
        "damage, answers", "damage, text",
    ), rows)  # fmt: skip


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    panels = figure.subplots(1, 3)
    sizes = [size for (size,) in found.each("size")]
    made = [construction for (construction,) in found.each("construction")]
    for at, construction in enumerate(made):
        alone, aside = _alone(found, construction), 8 * (at - (len(made) - 1) / 2)

        def cells(rule: str, size: int, of: str = construction) -> list[Any]:
            return [cell.found for cell in found.pick(construction=of, rule=rule, size=size)]

        for axes, rule in zip(panels, RULES, strict=False):
            means = [figures.kept_of(cells(rule, size), alone)[0] for size in sizes[1:]]
            line(axes, range(1, len(sizes)), means, construction, at, factor=100, shift=aside)
        lost = [figures.damage([one["cost"] for one in cells("add", size)], text=True) for size in sizes]
        line(panels[2], range(len(sizes)), lost, construction, at, shift=aside)
    for axes, rule in zip(panels, RULES, strict=False):
        level(axes, 100, "as alone")
        level(axes, 0, "no effect")
        axes.set(title=f"Kept under {rule}", xlim=(0.5, len(sizes) - 0.5))
    panels[1].sharey(panels[0])
    level(panels[2], 0, "as the\nbase")
    panels[0].set_ylabel("effect merged / effect alone, %")
    panels[2].set(
        title="Lost on plain text, add", ylabel="damage, nats a token", xlim=(-0.5, len(sizes) - 0.5)
    )
    for axes in panels:
        axes.set_xlabel("behaviours merged")
        first = 0 if axes is panels[2] else 1
        ticks(axes, range(first, len(sizes)), [str(size) for size in sizes[first:]])
