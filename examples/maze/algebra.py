"""Do vectors add up, and does the vector of one maze work in another?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from examples.maze import vectors
from examples.maze.bench import PADDED, Bench, Contest, contest
from examples.maze.measures import Floats, ends, interval
from examples.maze.vectors import field, logits
from examples.maze.world import SIDE, SIZES

__all__ = ["STEPS", "composition", "transfer"]

STEPS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0)


def composition(bench: Bench) -> dict[str, Any]:
    """|Δ(s,t) - Δ(s,0) - Δ(0,t)| / (|Δ(s,0)| + |Δ(0,t)|) of logits, s cheese and t top-right vectors; and outcomes."""
    some, _ = contest(bench.plan.grid, 211, sizes=PADDED)
    pair = (
        vectors.cheese(bench.net, some.mazes, bench.site),
        vectors.path(bench.net, some.mazes, bench.site),
    )
    noise = tuple(vectors.gaussian(one, 12 + at) for at, one in enumerate(pair))
    return {
        "mazes": len(some), "steps": STEPS, "vectors": _grid(bench, some, pair), "random": _grid(bench, some, noise),
        "outcomes": _outcomes(bench, some, pair),
    }  # fmt: skip


def _grid(bench: Bench, some: Contest, pair: tuple[Tensor, ...]) -> dict[str, Any]:
    moved: dict[tuple[float, float], Floats] = {}
    for s in STEPS:
        for t in STEPS:
            given = logits(bench.net, some.mazes, some.squares, {bench.site: s * pair[0] + t * pair[1]})
            moved[s, t] = given - given.mean(1, keepdims=True)  # a constant on all logits changes nothing
    table, by_maze = [], []
    for s in STEPS:
        line = []
        for t in STEPS:
            own = [moved[at] - moved[0, 0] for at in ((s, t), (s, 0.0), (0.0, t))]
            apart = np.linalg.norm(own[1], axis=1) + np.linalg.norm(own[2], axis=1)
            ratio = np.linalg.norm(own[0] - own[1] - own[2], axis=1) / np.maximum(apart, 1e-9)
            line.append({**interval(ratio), "moved": float(np.linalg.norm(own[0], axis=1).mean())})
            if s and t:
                by_maze.append(ratio)
        table.append(line)
    return {"table": table, "mean": interval(np.mean(by_maze, 0))}


def _outcomes(bench: Bench, some: Contest, pair: tuple[Tensor, ...]) -> dict[str, Any]:
    """Where sampled episodes end under none, either and both."""
    kinds = {"neither": (0, 0), "minus cheese": (-1, 0), "plus top-right": (0, 1), "both": (-1, 1)}
    found = {}
    for name, (s, t) in kinds.items():
        found[name] = ends(some.mazes, field(bench.net, some.mazes, {bench.site: s * pair[0] + t * pair[1]}))
    shifts = {name: one.corner - found["neither"].corner for name, one in found.items()}
    extra = shifts["both"] - shifts["minus cheese"] - shifts["plus top-right"]
    return {
        **{
            name: {"cheese": interval(one.cheese), "corner": interval(one.corner)}
            for name, one in found.items()
        },
        "corner_beyond_sum": interval(extra),
        "both_beyond_best": interval(
            found["both"].corner - np.maximum(found["minus cheese"].corner, found["plus top-right"].corner)
        ),
    }


def transfer(bench: Bench) -> dict[str, Any]:
    """The shift at decision squares, by the size of the maze a vector is from and of the one it is added in."""
    goals: dict[str, tuple[float, tuple[int, ...], Callable[[Contest], Tensor]]] = {
        "cheese": (-1.0, SIZES, lambda some: vectors.cheese(bench.net, some.mazes, bench.site)),
        "corner": (1.0, (5, *PADDED), lambda some: vectors.path(bench.net, some.mazes, bench.site)),
    }
    found: dict[str, Any] = {}
    for goal, (sign, sources, make) in goals.items():
        wants = bench.wants if goal == "cheese" else None
        targets = {size: contest(bench.plan.transfer, 220 + size, sizes=(size,), wants=wants)[0]
                   for size in SIZES}  # fmt: skip
        given = {
            size: sign * make(contest(len(targets[size]), 240 + size, sizes=(size,))[0]) for size in sources
        }
        matrix = {
            f"{source}>{size}": _shift(bench, one, given[source], goal)
            for source in sources
            for size, one in targets.items()
        }
        own = {f"{size}": _shift(bench, one, sign * make(one), goal)
               for size, one in targets.items() if size in sources}  # fmt: skip
        random = {f"{size}": _shift(bench, one, vectors.gaussian(given[sources[-1]], 60 + size), goal)
                  for size, one in targets.items()}  # fmt: skip
        some, _ = contest(bench.plan.each, 280, sizes=PADDED, wants=wants)
        found[goal] = {"sources": sources, "targets": SIZES, "matrix": matrix, "own": own, "random": random,
                       "single": _single(bench, some, sign * make(some), goal)}  # fmt: skip
    found["by_distance"] = _by_distance(bench)
    return found


def _by_distance(bench: Bench) -> dict[str, Any]:
    """Minus the cheese vector of another maze, by how many squares apart the cheeses are (the longer of both ways)."""
    some, _ = contest(bench.plan.layer, 290, sizes=PADDED, wants=bench.wants)
    given = -vectors.cheese(bench.net, some.mazes, bench.site)
    every, apart, shift = np.arange(len(some)), [], []
    for step in range(min(bench.plan.others, len(some))):
        sources = np.roll(every, step)
        apart.append(np.abs(some.mazes.cheese - some.mazes.cheese[sources]).max(1))
        shift.append(_moved(bench, some, {bench.site: given[sources]}, "cheese"))
    far, moved, own = np.concatenate(apart[1:]), np.concatenate(shift[1:]), shift[0]
    found = {"own": interval(own)}
    for name, low, high in (("0 or 1", 0, 1), ("2", 2, 2), ("3 or 4", 3, 4), ("5 or more", 5, SIDE)):
        near = moved[(far >= low) & (far <= high)]
        if len(near) > 1:
            found[name] = interval(near)
    return found


def _shift(bench: Bench, some: Contest, given: Tensor, goal: str) -> dict[str, Any]:
    """As many vectors as mazes, or fewer, taken in turn."""
    edits = {bench.site: given[np.arange(len(some)) % len(given)]}
    return interval(_moved(bench, some, edits, goal))


def _single(bench: Bench, some: Contest, given: Tensor, goal: str) -> dict[str, Any]:
    """Every vector in every maze: rows are sources."""
    table = np.array(
        [_moved(bench, some, {bench.site: given[[source] * len(some)]}, goal) for source in range(len(some))]
    )
    off = ~np.eye(len(some), dtype=bool)
    return {"table": table.tolist(), "sizes": some.mazes.sizes.tolist(),
            "own": float(table.diagonal().mean()), "others": float(table[off].mean())}  # fmt: skip


def _moved(bench: Bench, some: Contest, edits: vectors.Edits, goal: str) -> Floats:
    """Shift of P(move to the goal), maze by maze."""
    at = int(goal == "corner")
    after = some.chances(logits(bench.net, some.mazes, some.squares, edits))[at]
    shift: Floats = after - some.chances(logits(bench.net, some.mazes, some.squares))[at]
    return shift
