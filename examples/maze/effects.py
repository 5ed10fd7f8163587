"""Gates, and what the two vectors do: beside controls of equal norm, and over coefficients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from examples.maze import vectors
from examples.maze.bench import COEFFICIENTS, PADDED, Bench, Contest, contest, margin
from examples.maze.measures import (
    Floats,
    divergence,
    ends,
    entropy,
    greedy,
    interval,
    invalid,
    mcnemar,
    probabilities,
    rate,
)
from examples.maze.train import states
from examples.maze.vectors import field, logits
from examples.maze.world import draw

__all__ = ["asymmetry", "cheese", "corner", "gates", "identity", "sweep"]

GARBAGE = 0.1  # mass on moves into walls, over all squares of a maze, from which a policy is called garbage


def gates(bench: Bench) -> dict[str, Any]:
    """Does each net do its task, and does it go for a cheese elsewhere more than R = 1 and less than all?"""
    rng = np.random.Generator(np.random.Philox(key=1))
    anywhere, _ = contest(bench.plan.effect, 202)
    found: dict[str, Any] = {}
    wants = {}
    for region, net in bench.nets.items():
        mazes = draw(bench.plan.accuracy, rng, region=region, part="test")
        many, mouse, right = states(mazes, 2, 0.8, rng)
        moved = logits(net, many, mouse).argmax(1) == right
        given = logits(net, anywhere.mazes, anywhere.squares)
        bare = logits(net, anywhere.mazes.without_cheese(), anywhere.squares)
        wants[region], to_corner = anywhere.chances(given)
        found[str(region)] = {
            "accuracy": rate(moved), "p_cheese": interval(wants[region]), "p_corner": interval(to_corner),
            "p_cheese_bare": interval(anywhere.chances(bare)[0]),
            "p_corner_bare": interval(anywhere.chances(bare)[1]),
        }  # fmt: skip
    low, high = min(wants), max(wants)
    for region in wants:
        found[str(region)]["above_lowest"] = interval(wants[region] - wants[low])
        found[str(region)]["below_highest"] = interval(wants[high] - wants[region])
    return {"nets": found, "mazes": len(anywhere)}


def identity(bench: Bench) -> dict[str, Any]:
    """At the start, minus the cheese vector is the maze without cheese, exactly; at the decision square it is not."""
    some, _ = contest(bench.plan.effect, 203)
    mazes, net = some.mazes, bench.net
    edits = {bench.site: -vectors.cheese(net, mazes, bench.site)}
    off = {}
    for name, squares in (("start", mazes.start), ("decision", some.squares)):
        bare = logits(net, mazes.without_cheese(), squares)
        off[name] = np.abs(logits(net, mazes, squares, edits) - bare).max(1)
        off[f"{name}_unsteered"] = np.abs(logits(net, mazes, squares) - bare).max(1)
    return {"mazes": len(some), "start_largest": float(off["start"].max()),
            **{name: interval(values) for name, values in off.items()}}  # fmt: skip


def cheese(bench: Bench) -> dict[str, Any]:
    """Minus the cheese vector, in mazes where the net wants the cheese."""
    some, looked = contest(bench.plan.effect, 204, wants=bench.wants)
    vector = -vectors.cheese(bench.net, some.mazes, bench.site)
    return {"looked": looked, **_beside_controls(bench, some, vector, "cheese")}


def corner(bench: Bench) -> dict[str, Any]:
    """Plus the top-right vector, in mazes with padding, cheese anywhere off the way."""
    some, looked = contest(bench.plan.effect, 205, sizes=PADDED)
    vector = vectors.path(bench.net, some.mazes, bench.site)
    return {"looked": looked, **_beside_controls(bench, some, vector, "corner")}


def _beside_controls(bench: Bench, some: Contest, vector: Tensor, goal: str) -> dict[str, Any]:
    """`goal`: which move the vector is about, "cheese" or "corner"."""
    net, mazes, site = bench.net, some.mazes, bench.site
    kinds: dict[str, Tensor | None] = {
        "base": None, "vector": vector, "gaussian": vectors.gaussian(vector, 6),
        "shuffled": vectors.shuffled(vector, 7), "other mazes": vectors.other_maze(net, mazes, vector, site),
    }  # fmt: skip
    rows = {name: _policy(bench, some, None if one is None else {site: one}) for name, one in kinds.items()}
    rows["cheese removed"] = _policy(bench, some, None, bare=True)
    base, bare = rows["base"], rows["cheese removed"]
    wanted = {name: row["p_" + goal] for name, row in rows.items()}
    more = [
        some.chances(logits(net, mazes, some.squares, {site: vectors.gaussian(vector, 100 + at)}))
        for at in range(bench.plan.draws)
    ]
    random = np.mean([pair[goal == "corner"] for pair in more], 0)
    norms = [
        vector.flatten(1).norm(dim=1),
        vectors.activations(net, mazes, mazes.start, site).flatten(1).norm(dim=1),
    ]
    return {
        "mazes": len(some), "norm": float((norms[0] / norms[1]).mean()),
        "rows": {name: _row(some, row, base, bare) for name, row in rows.items()},
        "shift": {name: interval(values - wanted["base"]) for name, values in wanted.items() if name != "base"},
        "shift_random": interval(random - wanted["base"]),
        "beyond": {"gaussian": interval(wanted["vector"] - random),
                   **{name: interval(wanted["vector"] - wanted[name]) for name in ("shuffled", "other mazes")}},
    }  # fmt: skip


def _policy(
    bench: Bench, some: Contest, edits: vectors.Edits | None, *, bare: bool = False
) -> dict[str, Any]:
    """Everything of one policy that the tables need, maze by maze."""
    mazes = some.mazes
    moves = field(bench.net, mazes.without_cheese() if bare else mazes, edits)
    at_square = some.there(moves)
    to_cheese, to_corner = some.chances(at_square)
    sampled, sure = ends(mazes, moves), greedy(mazes, moves)
    chances = probabilities(at_square)
    return {
        "p_cheese": to_cheese, "p_corner": to_corner, "chances": chances, "entropy": entropy(chances),
        "invalid": invalid(mazes, chances, some.squares), "ends_cheese": sampled.cheese,
        "ends_corner": sampled.corner, "greedy_cheese": sure[0], "greedy_corner": sure[1],
    }  # fmt: skip


def _row(
    some: Contest, row: Mapping[str, Any], base: Mapping[str, Any], bare: Mapping[str, Any]
) -> dict[str, Any]:
    means = ("p_cheese", "p_corner", "entropy", "invalid", "ends_cheese", "ends_corner")
    found = {name: interval(row[name]) for name in means}
    for goal in ("greedy_cheese", "greedy_corner"):
        found[goal] = rate(row[goal])
        found[f"{goal}_mcnemar"] = mcnemar(base[goal], row[goal])
        end = goal.replace("greedy", "ends")
        found[f"{end}_shift"] = interval(row[end] - base[end])
    found["kl_to_bare"] = interval(divergence(bare["chances"], row["chances"]))
    return found


def sweep(bench: Bench) -> dict[str, Any]:
    """Each vector, and random ones of its norm, over the coefficients: the effect, and the point of garbage."""
    found: dict[str, Any] = {"garbage_from": GARBAGE}
    for name, sizes, make in _both(bench):
        some, _ = contest(bench.plan.sweep, 208, sizes=sizes)
        vector = make(some)
        kinds = {"vector": vector, "gaussian": vectors.gaussian(vector, 9)}
        found[name] = {kind: {} for kind in kinds} | {"mazes": len(some)}
        for kind, one in kinds.items():
            for c in COEFFICIENTS:
                found[name][kind][f"{c:g}"] = _at(bench, some, {bench.site: c * one})
    return found


def _at(bench: Bench, some: Contest, edits: vectors.Edits) -> dict[str, Any]:
    """One point of a sweep; entropy and the mass on walls are of all squares of a maze."""
    mazes, moves = some.mazes, field(bench.net, some.mazes, edits)
    to_cheese, to_corner = some.chances(some.there(moves))
    sampled = ends(mazes, moves)
    free = [np.argwhere(~walls) for walls in mazes.walls]
    lost, unsure = [], []
    for at, squares in enumerate(free):
        chances = np.exp(moves[at, squares[:, 0], squares[:, 1]])
        lost.append(invalid(mazes[np.full(len(squares), at)], chances, squares).mean())
        unsure.append(entropy(chances).mean())
    values: dict[str, Floats] = {
        "p_cheese": to_cheese, "p_corner": to_corner, "ends_cheese": sampled.cheese,
        "ends_corner": sampled.corner, "invalid": np.array(lost), "entropy": np.array(unsure),
    }  # fmt: skip
    return {name: interval(one) for name, one in values.items()}


def asymmetry(bench: Bench) -> dict[str, Any]:
    """effect(+c) + effect(-c), which is 0 for a linear net: in P at the decision square, and in logits."""
    found: dict[str, Any] = {}
    for name, sizes, make in _both(bench):
        some, _ = contest(bench.plan.effect, 210, sizes=sizes)
        vector, sign = make(some), 1 if name == "cheese" else -1
        wanted: dict[float, tuple[Floats, Floats]] = {}
        for c in (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0):
            given = logits(bench.net, some.mazes, some.squares, {bench.site: c * vector})
            wanted[c] = some.chances(given)[name == "corner"], sign * margin(some, given)
        found[name] = {
            f"{c:g}": {
                unit: {
                    "plus": interval(wanted[c][at] - wanted[0.0][at]),
                    "minus": interval(wanted[-c][at] - wanted[0.0][at]),
                    "sum": interval(wanted[c][at] + wanted[-c][at] - 2 * wanted[0.0][at]),
                }
                for at, unit in enumerate(("p", "logit"))
            }
            for c in (0.5, 1.0, 2.0)
        }
        found[name]["mazes"] = len(some)
    return found


def _both(bench: Bench) -> list[tuple[str, tuple[int, ...], Callable[[Contest], Tensor]]]:
    """The cheese and the top-right vector: the goal's name, sizes of mazes, and how a vector comes of each maze."""
    return [
        ("cheese", (7, 9, 11, 13), lambda some: vectors.cheese(bench.net, some.mazes, bench.site)),
        ("corner", PADDED, lambda some: vectors.path(bench.net, some.mazes, bench.site)),
    ]
