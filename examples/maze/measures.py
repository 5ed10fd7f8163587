"""What is measured of a policy: its moves, where they end, how near it is to garbage; and tests of differences."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from examples.maze.planner import moves
from examples.maze.world import MOVES, NOWHERE, SIDE, Bools, Ints, Mazes
from pv.vecstore.evaluate.statistics import bootstrap, share

__all__ = ["Ends", "at_squares", "divergence", "ends", "entropy", "greedy", "interval", "invalid", "mcnemar",
           "probabilities", "rate", "towards"]  # fmt: skip

STEPS = 200  # of a sampled episode

Floats = NDArray[np.float64]


def probabilities(logits: Floats) -> Floats:
    """Softmax over the last axis."""
    up = np.exp(logits - logits.max(-1, keepdims=True))
    found: Floats = up / up.sum(-1, keepdims=True)
    return found


def towards(mazes: Mazes, target: Ints, squares: Ints) -> Ints:
    """The planner's move from a square of each maze: (B,)."""
    return at_squares(moves(mazes.walls, target), squares)


def at_squares(values: NDArray[Any], squares: Ints) -> NDArray[Any]:
    """One square of each maze: (B, 13, 13, ...) -> (B, ...)."""
    found: NDArray[Any] = values[np.arange(len(values)), squares[:, 0], squares[:, 1]]
    return found


def entropy(chances: Floats) -> Floats:
    """In nats, over the last axis; ln 4 = 1.386 knows nothing."""
    found: Floats = -(chances * np.log(np.clip(chances, 1e-300, None))).sum(-1)
    return found


def invalid(mazes: Mazes, chances: Floats, squares: Ints) -> Floats:
    """The mass on moves into a wall or out of the world, at a square of each maze: (B, 4) -> (B,)."""
    wide = np.pad(mazes.walls, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    blocked = np.stack([at_squares(wide, squares + 1 + step) for step in MOVES], -1)
    found: Floats = (chances * blocked).sum(-1)
    return found


def divergence(p: Floats, q: Floats) -> Floats:
    """KL(p || q) in nats, over the last axis."""
    small = 1e-300
    found: Floats = (p * (np.log(np.clip(p, small, None)) - np.log(np.clip(q, small, None)))).sum(-1)
    return found


@dataclass(frozen=True, slots=True)
class Ends:
    """(B,) each: the chance of an episode to end at the cheese, or at the corner; the rest does neither in time."""

    cheese: Floats
    corner: Floats


def ends(mazes: Mazes, field: Floats) -> Ends:
    """Of sampled episodes of 200 steps from the start, computed exactly; a move into a wall stays."""
    every = np.arange(len(mazes))
    here: Floats = np.zeros((len(mazes), SIDE, SIDE))
    begin = mazes.start
    here[every, begin[:, 0], begin[:, 1]] = 1
    chances, landing = np.nan_to_num(np.exp(field)), _landing(mazes)
    stops = [_marked(mazes, mazes.cheese), _marked(mazes, mazes.corner)]
    done = np.zeros((2, len(mazes)))
    flat = np.arange(len(mazes))[:, None, None] * SIDE * SIDE + landing.transpose(3, 0, 1, 2)
    for _ in range(STEPS):
        flows = (here[..., None] * chances).transpose(3, 0, 1, 2)
        here = np.bincount(flat.ravel(), flows.ravel(), here.size).reshape(here.shape).astype(np.float64)
        for at, stop in enumerate(stops):
            done[at] += (here * stop).sum((1, 2))
            here = here * ~stop
    return Ends(done[0], done[1])


def greedy(mazes: Mazes, field: Floats) -> tuple[Bools, Bools]:
    """Whether the most likely moves from the start lead to the cheese, or to the corner before it: (B,), (B,)."""
    sure = np.where(np.isnan(field), -np.inf, field)
    best = np.log(np.eye(4)[sure.argmax(-1)] + 1e-300)
    found = ends(mazes, np.where(np.isnan(field), np.nan, best))
    return found.cheese > 0.5, found.corner > 0.5


def interval(values: ArrayLike, seed: int = 0) -> dict[str, Any]:
    """A mean with its bootstrap interval of 95 %, as JSON; of differences, a paired one."""
    return bootstrap(values, seed=seed).to_json()


def rate(found: Bools) -> dict[str, Any]:
    """A share with Wilson's interval, as JSON."""
    return share(int(found.sum()), len(found)).to_json()


def mcnemar(before: Bools, after: Bools) -> dict[str, Any]:
    """The exact test on pairs: how many changed each way, and the two-sided p."""
    up, down = int((after & ~before).sum()), int((before & ~after).sum())
    n, few = up + down, min(up, down)
    half = sum(math.comb(n, k) for k in range(few + 1)) / (1 << n)
    return {"gained": up, "lost": down, "p": min(1.0, 2 * half)}


def _landing(mazes: Mazes) -> Ints:
    """The flat square that each move leads to: (B, 13, 13, 4)."""
    rows, columns = np.indices((SIDE, SIDE))
    found = []
    wide = np.pad(mazes.walls, ((0, 0), (1, 1), (1, 1)), constant_values=True)
    for r, c in MOVES:
        blocked = wide[:, 1 + r : 1 + r + SIDE, 1 + c : 1 + c + SIDE]
        found.append(np.where(blocked, rows * SIDE + columns, (rows + r) * SIDE + columns + c))
    return np.stack(found, -1)


def _marked(mazes: Mazes, squares: Ints) -> Bools:
    there = squares[:, 0] != NOWHERE
    marked = np.zeros(mazes.walls.shape, bool)
    marked[np.flatnonzero(there), squares[there, 0], squares[there, 1]] = True
    return marked
