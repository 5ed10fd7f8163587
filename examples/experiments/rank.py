"""What rank does a behaviour need? A trained vector is cut to its first singular directions, tensor by tensor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from examples.experiments import figures, measured
from examples.experiments.deltas import encoded, norm
from examples.experiments.experiment import Bench, Case, Found, Plan, Table
from examples.experiments.sets import eight
from examples.experiments.settings import options
from examples.experiments.vectors import Recipe
from pv.vecstore.vectors.encodings import lowrank

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Rank against behaviour kept"
QUESTION = "How many singular directions of a trained vector does a behaviour need?"
HOW = (
    "Vectors trained at full rank are kept as pv keeps them in its encoding lowrank:r: the best approximation of "
    "that rank of every matrix, in int8 factors. Kept is the effect on held-out rows at that rank, divided by the "
    "effect of the vector as it was trained."
)
LEGEND = {
    "kept": "effect at this rank / effect of the whole vector; interval over held-out rows",
    "of its norm": "norm of what is left, in % of the whole vector's",
    "size": "bytes that pv would store, uncompressed; the whole vector as bf16",
}
RANKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
NAMES = ("pirate", "topic", "shouting")


def cases(plan: Plan) -> list[Case]:
    names, ranks = (NAMES[:1], (1, 8, 64)) if plan.quick else (NAMES, RANKS)
    found = []
    for seed in range(plan.seeds):
        for name in names:
            rows, held = eight(name, quick=plan.quick)
            recipe = Recipe(rows, options(seed, quick=plan.quick))
            for rank in (None, *ranks):
                values = {"behaviour": name, "seed": seed, "rank": rank}
                found.append(Case(values, (recipe,), (held,)))
    return found


def notes(plan: Plan) -> list[str]:
    return []


def measure(bench: Bench, case: Case) -> dict[str, Any]:
    whole = bench.vectors.get(case.recipes[0])
    cut, size = whole, sum(2 * d.size for d in whole.values())
    if case.values["rank"] is not None:
        cut, size = encoded(whole, lowrank, rank=case.values["rank"])
    bench.lab.put([cut])
    return {
        "margins": measured.margins(bench.lab, case.held[0]),
        "norm": norm(cut) / bench.vectors.norm(case.recipes[0]),
        "bytes": size,
    }


def table(found: Found) -> Table:
    rows = []
    for name, rank in found.each("behaviour", "rank"):
        cells = found.pick(behaviour=name, rank=rank)
        parts = [cell.found["margins"] for cell in cells]
        share = _kept(found, name, rank)
        rows.append([
            name, "all" if rank is None else str(rank), figures.said(figures.effect(parts)),
            figures.said(share, ".0f", 100), figures.said(figures.wins(parts), ".0f", 100),
            f"{100 * np.mean([cell.found['norm'] for cell in cells]):.0f} %",
            f"{np.mean([cell.found['bytes'] for cell in cells]) / 1e6:.1f} MB",
        ])  # fmt: skip
    return Table(("behaviour", "rank", "effect, nats", "kept, %", "rows won, %", "of its norm", "size"), rows)


def draw(figure: Figure, found: Found) -> None:
    from examples.experiments.plots import level, line, ticks

    left, right = figure.subplots(1, 2)
    names = [name for (name,) in found.each("behaviour")]
    ranks = [rank for (rank,) in found.each("rank") if rank is not None]
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xlabel("rank of each matrix")
    for at, name in enumerate(names):
        shares = [_kept(found, name, rank) for rank in ranks]
        line(left, ranks, shares, name, at, factor=100, shift=3 * at)
        norms = [np.mean([c.found["norm"] for c in found.pick(behaviour=name, rank=r)]) for r in ranks]
        right.plot(ranks, 100 * np.array(norms), color=f"C{at}", marker="os^"[at % 3])
    level(left, 100, "the whole\nvector")
    level(left, 0, "no effect")
    level(right, 100, "the whole\nvector")
    left.set(title="Behaviour kept", ylabel="effect kept, %")
    right.set(title="Vector kept", ylabel="norm kept, %", ylim=(0, 108))
    for axes in (left, right):
        ticks(axes, ranks)


def _kept(found: Found, name: str, rank: int | None) -> Any:
    here, whole = (
        [cell.found["margins"] for cell in found.pick(behaviour=name, rank=one)] for one in (rank, None)
    )
    return figures.kept(here, whole)


__all__ = ["HOW", "LEGEND", "QUESTION", "TITLE", "cases", "draw", "measure", "table"]
