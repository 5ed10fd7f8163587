"""pv's TIES against the tools that its presets are named after, on inputs without equal magnitudes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.merging import combine

from pv.registry.combine import Combine

N = 5000
WEIGHTS = [(1.0,), (1.0, 1.0), (2.0, 0.5), (0.7, 1.3, 0.4)]
DENSITIES = [0.1, 0.25, 0.5, 1.0]
Merge = Callable[..., torch.Tensor]


def _deltas(count: int) -> list[np.ndarray]:
    return [
        np.random.default_rng(40 + i).standard_normal(N, np.float32) * np.float32(0.01) for i in range(count)
    ]


def _ours(rule: Combine, weights: tuple[float, ...], deltas: list[np.ndarray]) -> np.ndarray:
    return combine(rule, [(w, d) for w, d in zip(weights, deltas, strict=True)])


def _agree(ours: np.ndarray, theirs: torch.Tensor) -> None:
    expected = theirs.to(torch.float32).numpy()
    assert np.array_equal(ours == 0, expected == 0)
    np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=0)


# ------------------------------------------------------------------------------------------- peft


@pytest.fixture(scope="module")
def peft_ties() -> Merge:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft.utils.merge_utils import ties
    merge: Merge = ties
    return merge


def _peft(ties: Merge, weights: tuple[float, ...], deltas: list[np.ndarray], density: float) -> torch.Tensor:
    return ties([torch.from_numpy(d) for d in deltas], torch.tensor(weights), density)


@pytest.mark.filterwarnings("ignore:The density 1.0 is greater")
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_peft_preset(peft_ties: Merge, weights: tuple[float, ...], density: float) -> None:
    deltas = _deltas(len(weights))
    rule = Combine.of("ties", preset="peft", density=density)
    _agree(_ours(rule, weights, deltas), _peft(peft_ties, weights, deltas, density))


def test_a_negated_behaviour_is_peft_given_the_negated_delta(peft_ties: Merge) -> None:
    deltas = _deltas(3)
    rule = Combine.of("ties", preset="peft", density=0.5)
    ours = _ours(rule, (1.0, -0.8, 0.5), deltas)
    _agree(ours, _peft(peft_ties, (1.0, 0.8, 0.5), [deltas[0], -deltas[1], deltas[2]], 0.5))


# --------------------------------------------------------------------------------------- mergekit


@pytest.fixture(scope="module")
def mergekit() -> Merge:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("mergekit.merge_methods", reason="mergekit is an optional oracle")
    merge: Merge = module.merge_tensors
    return merge


def _mergekit(
    merge: Merge, method: str, weights: tuple[float, ...], deltas: list[np.ndarray], **parameters: Any
) -> torch.Tensor:
    # Over a base of zeros the merged weights are the merged delta, with no rounding in between.
    return merge(
        [torch.zeros(N), *(torch.from_numpy(d) for d in deltas)],
        method,
        base_index=0,
        parameters={"weight": list(weights), **parameters},
        dtype=torch.float32,
    )


@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_the_mergekit_preset(mergekit: Merge, weights: tuple[float, ...], density: float) -> None:
    deltas = _deltas(len(weights))
    rule = Combine.of("ties", preset="mergekit", density=density)
    _agree(_ours(rule, weights, deltas), _mergekit(mergekit, "ties", weights, deltas, density=density))


def test_the_mergekit_preset_as_it_stands_is_mergekits_default(mergekit: Merge) -> None:
    deltas = _deltas(2)
    ours = _ours(Combine.of("ties", preset="mergekit"), (2.0, 0.5), deltas)
    _agree(ours, _mergekit(mergekit, "ties", (2.0, 0.5), deltas))


@pytest.mark.parametrize("weights", [*WEIGHTS, (1.0, -0.8), (-1.0,)])
def test_weighted_election_and_sum_is_mergekit_without_normalize(
    mergekit: Merge, weights: tuple[float, ...]
) -> None:
    deltas = _deltas(len(weights))
    scale: dict[str, Any] = {"lambda": 0.7}
    rule = Combine.of("ties", density=0.3, elect="weighted", merge="sum", **scale)
    theirs = _mergekit(mergekit, "ties", weights, deltas, density=0.3, normalize=False, **scale)
    _agree(_ours(rule, weights, deltas), theirs)


@pytest.mark.parametrize("weights", [*WEIGHTS, (1.0, -0.8), (-1.0,)])
def test_add_is_task_arithmetic(mergekit: Merge, weights: tuple[float, ...]) -> None:
    deltas = _deltas(len(weights))
    theirs = _mergekit(mergekit, "task_arithmetic", weights, deltas).numpy()
    # deltas may cancel here, so errors are measured against their size
    np.testing.assert_allclose(_ours(Combine.of("add"), weights, deltas), theirs, rtol=1e-6, atol=1e-8)


def test_what_mergekit_does_to_a_negative_weight(mergekit: Merge) -> None:
    """Why pv refuses it under weighted_mean: in mergekit -1 comes out as +1."""
    (delta,) = _deltas(1)
    assert torch.equal(_mergekit(mergekit, "ties", (-1.0,), [delta]), torch.from_numpy(delta))
