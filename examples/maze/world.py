"""The world: tree mazes of odd size in the middle of a 13 x 13 square of wall, a mouse, and a cheese.

Row 0 is at the top. A maze of size n fills the rows and columns m to m + n - 1, m = (13 - n) / 2; the rest is wall.
The mouse starts at its bottom left. Everything works on many mazes at a time: `walls` is (B, 13, 13) bool, squares
are (B, 2) int of row and column. Mazes come from Kruskal's algorithm, as those of procgen do (arXiv:1912.01588).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

__all__ = ["MOVES", "NOWHERE", "SIDE", "SIZES", "Mazes", "corner", "draw", "observe", "start", "with_path"]

SIDE = 13
SIZES = (5, 7, 9, 11, 13)
MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left
NOWHERE = -1  # row and column of a cheese that is not there
PARTS = {"train": (2, 3, 4, 5, 6, 7), "choose": (1,), "test": (0,)}  # of 8, by a hash of the walls

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Mazes:
    """`walls` (B, 13, 13) bool, `sizes` (B,), `cheese` (B, 2), with NOWHERE for none."""

    walls: Bools
    sizes: Ints
    cheese: Ints

    def __len__(self) -> int:
        return len(self.walls)

    def __getitem__(self, which: Bools | Ints | slice) -> Mazes:
        return Mazes(self.walls[which], self.sizes[which], self.cheese[which])

    def one(self, at: int) -> Mazes:
        return self[at : at + 1]

    def without_cheese(self) -> Mazes:
        return replace(self, cheese=np.full_like(self.cheese, NOWHERE))

    @property
    def start(self) -> Ints:
        return start(self.sizes)

    @property
    def corner(self) -> Ints:
        return corner(self.sizes)


def start(sizes: Ints) -> Ints:
    """The inner bottom left: (B,) -> (B, 2)."""
    margin = (SIDE - sizes) // 2
    return np.stack([SIDE - 1 - margin, margin], -1)


def corner(sizes: Ints) -> Ints:
    """The inner top right: (B,) -> (B, 2)."""
    margin = (SIDE - sizes) // 2
    return np.stack([margin, SIDE - 1 - margin], -1)


def draw(
    count: int, rng: np.random.Generator, *, region: int = SIDE, sizes: tuple[int, ...] = SIZES,
    part: str | None = None,
) -> Mazes:  # fmt: skip
    """Mazes with the cheese on a free square of the inner top-right region x region, the start left out.

    `part`: "train", "choose" or "test", which no two mazes of different parts share the walls of; None for all.
    """
    kept: list[Mazes] = []
    while (have := sum(map(len, kept))) < count:
        n = rng.choice(np.array(sizes), size=max(16, (count - have) * (1 if part in (None, "train") else 9)))
        walls = np.ones((len(n), SIDE, SIDE), bool)
        for size in np.unique(n):
            margin = (SIDE - int(size)) // 2
            inner = slice(margin, SIDE - margin)
            walls[n == size, inner, inner] = _trees(int(size), int((n == size).sum()), rng)
        mazes = Mazes(walls, n, _cheese(walls, n, region, rng))
        kept.append(mazes if part is None else mazes[np.isin(_hash(walls), PARTS[part])])
    return Mazes(*(np.concatenate([getattr(one, name) for one in kept])[:count]
                   for name in ("walls", "sizes", "cheese")))  # fmt: skip


def observe(mazes: Mazes, mouse: Ints) -> NDArray[np.float32]:
    """(B, 3, 13, 13): wall, mouse, cheese, each 0 or 1."""
    seen = np.zeros((len(mazes), 3, SIDE, SIDE), np.float32)
    seen[:, 0] = mazes.walls
    every = np.arange(len(mazes))
    seen[every, 1, mouse[:, 0], mouse[:, 1]] = 1
    there = mazes.cheese[:, 0] != NOWHERE
    seen[every[there], 2, mazes.cheese[there, 0], mazes.cheese[there, 1]] = 1
    return seen


def with_path(mazes: Mazes) -> Mazes:
    """With a way from the inner top right up through the padding, then right, to the square's own top right."""
    walls = mazes.walls.copy()
    for each, (row, column) in zip(walls, mazes.corner, strict=True):
        each[: row + 1, column] = False
        each[0, column:] = False
    return replace(mazes, walls=walls)


def _trees(size: int, count: int, rng: np.random.Generator) -> Bools:
    """Random spanning trees of the rooms, by Kruskal's algorithm, all at once: (count, size, size)."""
    side = (size + 1) // 2
    rooms = np.arange(side * side).reshape(side, side)
    across = np.stack([rooms[:, :-1].ravel(), rooms[:, 1:].ravel()], -1)
    down = np.stack([rooms[:-1].ravel(), rooms[1:].ravel()], -1)
    doors = np.concatenate([across, down])
    order = rng.permuted(np.tile(np.arange(len(doors)), (count, 1)), axis=1)
    tree = np.broadcast_to(np.arange(side * side), (count, side * side)).copy()  # which tree a room is in
    walls = np.ones((count, size, size), bool)
    walls[:, ::2, ::2] = False
    every = np.arange(count)
    for step in range(len(doors)):
        a, b = doors[order[:, step]].T
        mine, theirs = tree[every, a], tree[every, b]
        joins = mine != theirs
        row, column = a // side + b // side, a % side + b % side
        walls[every[joins], row[joins], column[joins]] = False
        tree = np.where(tree == theirs[:, None], mine[:, None], tree)
    return walls


def _cheese(walls: Bools, sizes: Ints, region: int, rng: np.random.Generator) -> Ints:
    """A free square of the region, each as likely as another."""
    margin, rows = (SIDE - sizes) // 2, np.arange(SIDE)
    high = rows[None] < (margin + region)[:, None]
    right = rows[None] > (SIDE - 1 - margin - region)[:, None]
    free = ~walls & high[:, :, None] & right[:, None, :]
    begin = start(sizes)
    free[np.arange(len(walls)), begin[:, 0], begin[:, 1]] = False
    chance = np.where(free, rng.random(walls.shape), -1).reshape(len(walls), -1)
    return np.stack(np.unravel_index(chance.argmax(1), (SIDE, SIDE)), -1).astype(np.int64)


def _hash(walls: Bools) -> Ints:
    """0 to 7, by the walls alone, the same ever."""
    weights = np.random.Generator(np.random.Philox(key=13)).integers(1 << 62, size=SIDE * SIDE)
    return (walls.reshape(len(walls), -1) @ weights >> 40) % 8
