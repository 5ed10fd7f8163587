"""The nets of all regions, one by one, in the same mazes."""

from __future__ import annotations

from typing import Any

import numpy as np

from examples.maze import vectors
from examples.maze.bench import PADDED, Bench, contest
from examples.maze.measures import ends, greedy, interval, mcnemar, rate
from examples.maze.net import Policy
from examples.maze.vectors import field, logits

__all__ = ["family"]


def family(bench: Bench) -> dict[str, Any]:
    return {str(region): _one(bench, net) for region, net in bench.nets.items()}


def _one(bench: Bench, net: Policy) -> dict[str, Any]:
    """Both vectors in all mazes, and the cheese vector again where this net wants the cheese at all."""
    some, _ = contest(bench.plan.family, 221, sizes=PADDED)
    mazes, site, squares = some.mazes, bench.site, some.squares
    base = some.chances(logits(net, mazes, squares))
    wants = base[0] > 0.5
    found: dict[str, Any] = {"mazes": len(some), "wants": rate(wants)}
    fields = {"base": field(net, mazes)}
    for at, (goal, vector) in enumerate((
        ("cheese", -vectors.cheese(net, mazes, site)), ("corner", vectors.path(net, mazes, site)),
    )):  # fmt: skip
        given = {"vector": vector, "random": vectors.gaussian(vector, 22)}
        shift = {
            name: some.chances(logits(net, mazes, squares, {site: one}))[at] - base[at]
            for name, one in given.items()
        }
        found[goal] = {name: interval(values) for name, values in shift.items()}
        found[goal]["beyond"] = interval(shift["vector"] - shift["random"])
        if goal == "cheese" and wants.sum() > 1:
            found[goal]["where_wanted"] = {
                **{name: interval(values[wants]) for name, values in shift.items()},
                "beyond": interval((shift["vector"] - shift["random"])[wants]),
            }
        fields[goal] = field(net, mazes, {site: vector})
    sure = {name: greedy(mazes, one) for name, one in fields.items()}
    for name, one in fields.items():
        sampled = ends(mazes, one)
        found[f"{name}_ends"] = {
            "cheese": interval(sampled.cheese), "corner": interval(sampled.corner),
            "greedy_cheese": rate(sure[name][0]), "greedy_corner": rate(sure[name][1]),
        }  # fmt: skip
    for goal, at in (("cheese", 0), ("corner", 1)):
        found[goal]["mcnemar"] = mcnemar(sure["base"][at], sure[goal][at])
    found["norm"] = float(np.mean(vectors.cheese(net, mazes, site).flatten(1).norm(dim=1).numpy()))
    return found
