"""The teacher: breadth-first search, for many mazes at a time. In a tree there is one way, so one right move."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from examples.maze.world import MOVES, SIDE, Bools, Ints, Mazes

__all__ = ["decision_squares", "distances", "moves", "on_path"]

FAR = 1 << 20  # where no way leads


def distances(walls: Bools, target: Ints) -> Ints:
    """Steps from each square to the target: (B, 13, 13), FAR for walls and what cannot be reached."""
    found = np.full(walls.shape, FAR)
    reached = np.zeros_like(walls)
    reached[np.arange(len(walls)), target[:, 0], target[:, 1]] = True
    front, step = reached, 0
    while front.any():
        found[front] = step
        step += 1
        front = _beside(front) & ~walls & ~reached
        reached = reached | front
    return found


def moves(walls: Bools, target: Ints) -> Ints:
    """The move towards the target from each square: (B, 13, 13), -1 at the target and where no way leads."""
    away = distances(walls, target)
    wide = np.pad(away, ((0, 0), (1, 1), (1, 1)), constant_values=FAR)
    there = np.stack([wide[:, 1 + r : 1 + r + SIDE, 1 + c : 1 + c + SIDE] for r, c in MOVES])
    return np.where((away == 0) | (away == FAR), -1, there.argmin(0))


def on_path(walls: Bools, begin: Ints, end: Ints) -> Bools:
    """The squares of the way from one square to another, both ends too: (B, 13, 13)."""
    forth, back = distances(walls, begin), distances(walls, end)
    whole = forth[np.arange(len(walls)), end[:, 0], end[:, 1]]
    found: Bools = forth + back == whole[:, None, None]
    return found


def decision_squares(mazes: Mazes) -> tuple[Ints, Bools]:
    """Where the ways from the start to the cheese and to the corner part, and in which mazes they do.

    (B, 2), (B,): False where the cheese lies on the way to the corner, or the corner on the way to the cheese.
    """
    begin = mazes.start
    shared = on_path(mazes.walls, begin, mazes.cheese) & on_path(mazes.walls, begin, mazes.corner)
    last = np.where(shared, distances(mazes.walls, begin), -1).reshape(len(mazes), -1).argmax(1)
    squares = np.stack(np.unravel_index(last, (SIDE, SIDE)), -1).astype(np.int64)
    ends = [(squares == end).all(1) for end in (mazes.cheese, mazes.corner)]
    parts: NDArray[np.bool_] = ~(ends[0] | ends[1])
    return squares, parts


def _beside(front: Bools) -> Bools:
    """One square further on every side."""
    wide = np.pad(front, ((0, 0), (1, 1), (1, 1)))
    shifted = [wide[:, 1 - r : 1 - r + SIDE, 1 - c : 1 - c + SIDE] for r, c in MOVES]
    found: Bools = np.logical_or.reduce(shifted)
    return found
