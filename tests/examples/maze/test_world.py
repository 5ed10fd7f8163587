"""The world and its planner: mazes are trees, held-out ones are held out, and the planner's way is the way."""

from __future__ import annotations

import numpy as np
import pytest

from examples.maze.planner import decision_squares, distances, moves, on_path
from examples.maze.world import MOVES, NOWHERE, SIDE, SIZES, Mazes, corner, draw, observe, start, with_path


def some(count: int = 60, seed: int = 0, **more: object) -> Mazes:
    return draw(count, np.random.default_rng(seed), **more)  # type: ignore[arg-type]


def neighbours(walls: np.ndarray, square: tuple[int, int]) -> list[tuple[int, int]]:
    beside = [(square[0] + int(r), square[1] + int(c)) for r, c in MOVES]
    return [(r, c) for r, c in beside if 0 <= r < SIDE and 0 <= c < SIDE and not walls[r, c]]


@pytest.mark.parametrize("size", SIZES)
def test_every_square_can_be_reached_in_exactly_one_way(size: int) -> None:
    """Connected, and one passage fewer than squares: a tree."""
    mazes = some(sizes=(size,))
    for maze in range(len(mazes)):
        walls = mazes.walls[maze]
        free = {(int(r), int(c)) for r, c in np.argwhere(~walls)}
        passages = sum(len(neighbours(walls, one)) for one in free)
        assert passages == 2 * (len(free) - 1)
        seen, todo = set(), [tuple(map(int, mazes.start[maze]))]
        while todo:
            one = todo.pop()
            seen.add(one)
            todo += [other for other in neighbours(walls, one) if other not in seen]  # type: ignore[arg-type]
        assert seen == free
        assert len(free) == 2 * ((size + 1) // 2) ** 2 - 1


def test_the_maze_is_in_the_middle_and_its_corners_are_free() -> None:
    mazes = some()
    margin = (SIDE - mazes.sizes) // 2
    for walls, m in zip(mazes.walls, margin, strict=True):
        inner = np.zeros_like(walls)
        inner[m : SIDE - m, m : SIDE - m] = True
        assert walls[~inner].all()
    for squares in (mazes.start, mazes.corner, mazes.cheese):
        assert not mazes.walls[np.arange(len(mazes)), squares[:, 0], squares[:, 1]].any()
    assert start(np.array([13])).tolist() == [[12, 0]]
    assert corner(np.array([5])).tolist() == [[4, 8]]


@pytest.mark.parametrize("region", [1, 3, 5, SIDE])
def test_the_cheese_is_in_its_region_and_all_over_it(region: int) -> None:
    mazes = some(400, region=region, sizes=(9,))
    down, left = mazes.cheese[:, 0] - mazes.corner[:, 0], mazes.corner[:, 1] - mazes.cheese[:, 1]
    assert down.min() == left.min() == 0
    assert max(down.max(), left.max()) == min(region, 9) - 1
    assert not (mazes.cheese == mazes.start).all(1).any()


def test_no_maze_of_one_part_is_in_another() -> None:
    parts = {
        part: {walls.tobytes() for walls in some(300, seed, part=part, sizes=(5, 7)).walls}
        for seed, part in enumerate(("train", "choose", "test"))
    }
    assert all(parts.values())
    assert not parts["train"] & parts["test"]
    assert not parts["train"] & parts["choose"]
    assert not parts["choose"] & parts["test"]


def test_the_same_seed_gives_the_same_mazes() -> None:
    one, other, third = some(20), some(20), some(20, seed=1)
    assert np.array_equal(one.walls, other.walls) and np.array_equal(one.cheese, other.cheese)
    assert not np.array_equal(one.walls, third.walls)


def test_what_is_seen() -> None:
    mazes = some(5)
    seen = observe(mazes, mazes.start)
    assert seen.shape == (5, 3, SIDE, SIDE) and seen.dtype == np.float32
    assert np.array_equal(seen[:, 0].astype(bool), mazes.walls)
    assert seen[:, 1].sum() == seen[:, 2].sum() == 5
    bare = mazes.without_cheese()
    assert (bare.cheese == NOWHERE).all()
    assert observe(bare, mazes.start)[:, 2].sum() == 0
    assert np.array_equal(observe(bare, mazes.start)[:, :2], seen[:, :2])


def test_the_way_to_the_squares_own_corner_is_open_and_nothing_else_changes() -> None:
    mazes = some(40, sizes=(5, 7, 9, 11))
    opened = with_path(mazes)
    assert (mazes.walls[:, 0, -1]).all()
    away = distances(opened.walls, np.tile([0, SIDE - 1], (len(mazes), 1)))
    every, end = np.arange(len(mazes)), mazes.corner
    margin = (SIDE - mazes.sizes) // 2
    assert np.array_equal(away[every, end[:, 0], end[:, 1]], 2 * margin)
    assert np.array_equal((mazes.walls & ~opened.walls).sum((1, 2)), 2 * margin)
    assert not (opened.walls & ~mazes.walls).any()


def test_the_planners_moves_lead_to_the_target_by_the_only_way() -> None:
    mazes = some(40)
    right, away = moves(mazes.walls, mazes.cheese), distances(mazes.walls, mazes.cheese)
    for maze in range(len(mazes)):
        here, steps = mazes.start[maze].copy(), 0
        way = [tuple(here)]
        while not np.array_equal(here, mazes.cheese[maze]):
            assert away[maze, here[0], here[1]] == away[maze, *mazes.start[maze]] - steps
            here, steps = here + MOVES[right[maze, here[0], here[1]]], steps + 1
            assert not mazes.walls[maze, here[0], here[1]]
            way.append(tuple(here))
        only = on_path(mazes.walls, mazes.start, mazes.cheese)[maze]
        assert {tuple(one) for one in np.argwhere(only)} == set(way)
        assert right[maze, here[0], here[1]] == -1
    assert (right[mazes.walls] == -1).all()


def test_at_the_decision_square_the_ways_part() -> None:
    mazes = some(200)
    squares, parted = decision_squares(mazes)
    assert 20 < parted.sum() < 200
    every = np.arange(len(mazes))
    to_cheese, to_corner = (
        moves(mazes.walls, end)[every, squares[:, 0], squares[:, 1]] for end in (mazes.cheese, mazes.corner)
    )
    assert (to_cheese != to_corner)[parted].all()
    shared = on_path(mazes.walls, mazes.start, mazes.cheese) & on_path(mazes.walls, mazes.start, mazes.corner)
    assert shared[every, squares[:, 0], squares[:, 1]].all()
