"""A planted number of directions is found, noise has none, and N95 of noise grows with the number of pairs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from pv.registry.errors import DataError
from pv.vecstore.probe.elbow import Elbow, components, elbow, enough, projected

F64 = NDArray[np.float64]


def noise(n: int, d: int, seed: int) -> F64:
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal((n, d))


def planted(n: int, d: int, rank: int, seed: int, strength: float = 6.0) -> tuple[F64, F64]:
    """Chosen and rejected activations that differ in `rank` directions, the first of them on average."""
    axes = np.linalg.qr(noise(d, rank, seed + 1))[0].T
    weights = noise(n, rank, seed + 2)
    weights[:, 0] = 2 + 0.1 * weights[:, 0]
    rejected = noise(n, d, seed + 3)
    return rejected + strength * np.sqrt(d) * weights @ axes + noise(n, d, seed + 4), rejected


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("rank", [1, 3])
def test_a_planted_rank_is_found(rank: int, seed: int) -> None:
    chosen, rejected = planted(48, 200, rank, seed)
    found = elbow("layer", chosen - rejected, (chosen, rejected), seed=seed)
    assert (found.above_horn, found.kept, found.n95, found.verdict) == (rank, rank, rank, "elbow")
    assert found.labels_matter and not found.rises and found.same is not None and found.same.kept == 1
    assert [one.mean for one in found.growth[-2:]] == [rank, rank]


def test_a_weak_direction_beside_a_strong_one_is_found() -> None:
    """What is left after the strong one is judged by itself: not as a share of all."""
    axes = np.linalg.qr(noise(200, 2, 7))[0].T
    weights = noise(60, 2, 8) * [0.2, 12] + [400, 0]
    found = elbow("layer", weights @ axes + noise(60, 200, 9))
    assert found.kept == 2 and found.n95 == 1 and len(found.horn) == 3
    above = [share > limit for share, limit in zip(found.shares, found.horn, strict=False)]
    assert above == [True, True, False] and found.horn[1] < 0.01 < found.horn[0]


def test_shuffled_labels_give_none() -> None:
    """Whichever way they are shuffled: within pairs, where only the mean can tell, or among all texts."""
    none, within = 0, 0
    for seed in range(10):
        chosen, rejected = planted(48, 200, 3, seed)
        random = np.random.Generator(np.random.Philox(key=100 + seed))
        turned = random.permutation(48)[:24]
        p, n = chosen.copy(), rejected.copy()
        p[turned], n[turned] = rejected[turned], chosen[turned]
        within += elbow("layer", p - n, (p, n), seed=seed).verdict == "none"
        every = np.concatenate([chosen, rejected])[random.permutation(96)]
        none += elbow("layer", every[:48] - every[48:], (every[:48], every[48:]), seed=seed).verdict == "none"
    assert none >= 9 and within >= 9


def test_noise_has_no_elbow() -> None:
    kept = [elbow("layer", noise(48, 200, seed), seed=seed) for seed in range(12)]
    assert sum(one.above_horn > 0 for one in kept) <= 3
    assert all(one.rises for one in kept) and sum(one.verdict == "none" for one in kept) >= 11


@pytest.mark.parametrize(("pairs", "expected"), [(25, 24), (50, 46), (100, 89)])
def test_n95_of_noise_is_nearly_the_number_of_pairs(pairs: int, expected: int) -> None:
    assert abs(enough(np.asarray(np.linalg.svd(noise(pairs, 576, 5))[1] ** 2, np.float64)) - expected) <= 1


def test_n95_of_a_planted_rank_does_not_grow() -> None:
    axes = np.linalg.qr(noise(576, 3, 1))[0].T
    rows = 100 * noise(100, 3, 2) @ axes + noise(100, 576, 3)
    assert [one.mean for one in elbow("layer", rows).growth] == [3] * 5


def test_the_same_seed_gives_the_same() -> None:
    chosen, rejected = planted(24, 96, 2, 1)
    one, two = (elbow("layer", chosen - rejected, (chosen, rejected), seed=4) for _ in range(2))
    assert one == two
    assert Elbow.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_projections_come_nearer_to_the_mean() -> None:
    rows = noise(20, 64, 3).reshape(20, 8, 8)
    mean, axes = rows.mean(0), components(rows)
    left = [float(np.linalg.norm(mean - projected(mean, axes, n))) for n in range(1, 21)]
    assert left == sorted(left, reverse=True) and left[-1] < 1e-5 < left[0]
    assert projected(mean, axes, 3).shape == (8, 8)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (np.ones((3, 5)), "too few"),
        (np.full((8, 5), np.nan), "not finite"),
        (np.zeros((8, 5)), "nothing differs"),
    ],
)
def test_what_is_no_set_of_differences(rows: F64, words: str) -> None:
    with pytest.raises(DataError, match=words) as error:
        elbow("model.layers.0", rows)
    assert error.value.hint
