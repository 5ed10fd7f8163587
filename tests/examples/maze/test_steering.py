"""Vectors of a net of convolutions: the identity at the start, controls of equal norm, and what is measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from examples.maze import measures, vectors
from examples.maze.bench import contest
from examples.maze.net import MIDDLE, Policy, Shape, net
from examples.maze.planner import moves, on_path
from examples.maze.train import Recipe, states, trained
from examples.maze.world import SIDE, Bools, Mazes, draw, observe
from pv.registry.errors import UsageError
from pv.vecstore.activations.hooks import captured, steered

SITES = [MIDDLE, "block1.conv", "block2.res1.resadd_out", "block2.pool", "fc", "policy"]


@pytest.fixture(scope="module")
def model() -> Policy:
    return net(Shape((4, 6), 16), seed=0).eval()


@pytest.fixture(scope="module")
def mazes() -> Mazes:
    return draw(6, np.random.default_rng(0), sizes=(9,))


@pytest.mark.parametrize("site", SITES)
def test_at_the_start_minus_the_cheese_vector_is_the_maze_without_cheese(
    site: str, model: Policy, mazes: Mazes
) -> None:
    vector = vectors.cheese(model, mazes, site)
    assert vector.flatten(1).norm(dim=1).min() > 0
    plain, bare = (vectors.logits(model, one, mazes.start) for one in (mazes, mazes.without_cheese()))
    given = vectors.logits(model, mazes, mazes.start, {site: -vector})
    assert np.abs(given - bare).max() < 1e-5 < np.abs(plain - bare).max()
    half = vectors.logits(model, mazes, mazes.start, {site: -0.5 * vector})
    assert np.abs(half - bare).max() > 1e-5


def test_before_the_first_relu_it_takes_the_cheese_out_everywhere_and_later_it_does_not(
    model: Policy,
) -> None:
    some, _ = contest(5, 0)
    bare = vectors.logits(model, some.mazes.without_cheese(), some.squares)
    off = {}
    for site in ("block1.conv", "fc"):
        vector = vectors.cheese(model, some.mazes, site)
        off[site] = np.abs(vectors.logits(model, some.mazes, some.squares, {site: -vector}) - bare).max()
    assert off["block1.conv"] < 1e-5 < off["fc"]


def test_hooks_read_and_add_to_maps_of_four_dimensions(model: Policy, mazes: Mazes) -> None:
    seen = torch.from_numpy(observe(mazes, mazes.start))
    with torch.no_grad(), captured(model, [MIDDLE, "fc"]) as before:
        plain = model(seen)
    assert before[MIDDLE].shape == (6, 4, SIDE, SIDE) and before["fc"].shape == (6, 16)
    direction = torch.randn(4, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), steered(model, {MIDDLE: direction}), captured(model, [MIDDLE]) as after:
        given = model(seen)
    assert torch.allclose(after[MIDDLE] - before[MIDDLE], direction.expand(6, -1, -1, -1), atol=1e-6)
    assert not torch.allclose(given, plain)
    with torch.no_grad():
        assert torch.equal(model(seen), plain)  # nothing stays behind
    with pytest.raises(UsageError, match="does not fit"), steered(model, {MIDDLE: direction[:2]}):
        model(seen)


def test_each_maze_gets_its_own_vector(model: Policy, mazes: Mazes) -> None:
    """A field of many mazes is what each gives alone, and its values at a square are those of one state."""
    vector = vectors.path(model, mazes, MIDDLE)
    whole = vectors.field(model, mazes, {MIDDLE: vector})
    alone = vectors.field(model, mazes.one(3), {MIDDLE: vector[3:4]})
    assert np.array_equal(np.isnan(whole[..., 0]), mazes.walls)
    assert np.allclose(whole[3], alone[0], atol=1e-6, equal_nan=True)
    given = vectors.logits(model, mazes, mazes.start, {MIDDLE: vector})
    at_start = np.exp(measures.at_squares(whole, mazes.start))
    assert np.allclose(at_start, measures.probabilities(given), atol=1e-6)


@pytest.mark.parametrize("site", SITES)
def test_controls_have_the_vectors_norms(site: str, model: Policy, mazes: Mazes) -> None:
    vector = vectors.cheese(model, mazes, site)
    for other in (
        vectors.gaussian(vector, 1), vectors.shuffled(vector, 2), vectors.other_maze(model, mazes, vector, site),
    ):  # fmt: skip
        assert other.shape == vector.shape
        assert torch.allclose(other.flatten(1).norm(dim=1), vector.flatten(1).norm(dim=1), rtol=1e-4)
        assert not torch.allclose(other, vector)
    again = vectors.shuffled(vector, 2)
    assert torch.equal(again, vectors.shuffled(vector, 2))
    assert torch.allclose(again.flatten(1).sort(dim=1).values, vector.flatten(1).sort(dim=1).values)


def test_episodes_end_where_the_policy_leads() -> None:
    mazes = draw(30, np.random.default_rng(1))
    for target, at in ((mazes.cheese, 0), (mazes.corner, 1)):
        right = moves(mazes.walls, target)
        sure = np.where(mazes.walls[..., None], np.nan, np.log(np.eye(4)[right] + 1e-12))
        found = measures.ends(mazes, sure)
        by_the_way = (found.cheese, found.corner)[1 - at]
        assert np.allclose((found.cheese, found.corner)[at] + by_the_way, 1, atol=1e-6)
        assert (by_the_way > 0.5).mean() < 0.5
        assert np.array_equal(measures.greedy(mazes, sure)[at], (found.cheese, found.corner)[at] > 0.5)


def test_a_policy_that_walks_into_walls_stays() -> None:
    mazes = draw(10, np.random.default_rng(2), sizes=(9,))
    down = np.log(np.tile([0.0, 0.0, 1.0, 0.0], (10, SIDE, SIDE, 1)) + 1e-300)  # the start is at the bottom
    found = measures.ends(mazes, np.where(mazes.walls[..., None], np.nan, down))
    assert found.cheese.max() < 1e-6 and found.corner.max() < 1e-6
    chances = np.exp(measures.at_squares(down, mazes.start))
    assert np.allclose(measures.invalid(mazes, chances, mazes.start), 1)
    assert np.allclose(measures.entropy(np.full((3, 4), 0.25)), np.log(4))


def test_mcnemar_counts_what_changed() -> None:
    before, after = np.array([True] * 9 + [False] * 3), np.array([False] * 8 + [True] * 4)
    found = measures.mcnemar(before, after)
    assert (found["gained"], found["lost"]) == (3, 8)
    assert found["p"] == pytest.approx(2 * (1 + 11 + 55 + 165) / 2**11)
    assert measures.mcnemar(before, before)["p"] == 1


def test_states_are_of_the_way_or_of_any_square_with_the_planners_move() -> None:
    rng = np.random.default_rng(3)
    mazes = draw(50, rng, region=3)
    many, mouse, right = states(mazes, 4, 1.0, rng)
    assert len(many) == len(mouse) == len(right) == 200
    assert np.array_equal(right, measures.towards(many, many.cheese, mouse))
    way = measures.at_squares(_way(many), mouse)
    assert way.all()
    _, anywhere, _ = states(mazes, 4, 0.0, rng)
    assert not measures.at_squares(_way(many), anywhere).all()


def _way(mazes: Mazes) -> Bools:
    return on_path(mazes.walls, mazes.start, mazes.cheese)


def test_a_net_that_was_trained_is_kept_and_is_the_same_from_the_same_seed(tmp_path: Path) -> None:
    recipe = Recipe(region=3, shape=Shape((2, 3), 8), steps=60, batch=32, mazes=64)
    losses: list[float] = []
    first = trained(recipe, tmp_path / "a", lambda step, loss: losses.append(loss))
    again = trained(recipe, tmp_path / "b")
    kept = trained(recipe, tmp_path / "a", lambda step, loss: pytest.fail("it was there"))
    assert losses and losses[-1] < np.log(4)
    for name, one in first.state_dict().items():
        assert torch.equal(one, again.state_dict()[name]) and torch.equal(one, kept.state_dict()[name])
    assert [file.suffix for file in (tmp_path / "a").iterdir()] == [".safetensors"]


def test_a_net_that_wants_no_cheese_is_said_to(model: Policy) -> None:
    with pytest.raises(UsageError, match="too few"):
        contest(5, 0, wants=(model, 0.99))
