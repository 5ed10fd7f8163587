"""The merge methods against those of mergekit 0.1.5 and PEFT, in fp32, on inputs without equal magnitudes.

Lengths are far above mergekit's smallest ones (1e-6 in model_stock and sce), and no weight that is divided by is
negative. What is drawn by lot agrees at density 1, and in its counts and means below.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.merging import combine

from pv.registry.combine import Combine

F32 = NDArray[np.float32]
Merge = Callable[..., torch.Tensor]

SHAPES = [(64, 50), (3000,), (7, 11)]
WEIGHTS = [(1.0, 1.0, 1.0), (0.7, 1.3, 0.4)]
EQUAL = (1.0, 1.0, 1.0)


def normal(seed: int, shape: tuple[int, ...], scale: float = 1.0) -> F32:
    found = np.random.default_rng(seed).standard_normal(shape, np.float32).reshape(-1)
    return found * np.float32(scale)


def deltas(shape: tuple[int, ...], count: int = 3) -> list[F32]:
    """They have something in common, as fine-tunes have."""
    return [normal(9, shape, 0.5) + normal(20 + at, shape, 0.7) for at in range(count)]


def agree(ours: F32, theirs: F32, *, of: F32 | None = None) -> None:
    """Element by element to 1e-6: of the merged delta, or of the merged model where the method makes one."""
    size = np.abs(theirs) if of is None else np.maximum(np.abs(theirs), np.abs(of))
    # a sum that cancels has the rounding of what it is a sum of
    assert np.all(np.abs(ours - theirs) <= 1e-6 * np.maximum(size, 0.3)), np.max(np.abs(ours - theirs))
    assert np.array_equal(ours == 0, theirs == 0)


# mergekit


@pytest.fixture(scope="module")
def mergekit() -> Merge:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("mergekit.merge_methods", reason="mergekit is an optional oracle")
    merge: Merge = module.merge_tensors
    return merge


def theirs(
    merge: Merge,
    method: str,
    base: F32 | None,
    models: Sequence[F32],
    shape: tuple[int, ...],
    **parameters: Any,
) -> F32:
    tensors = [torch.from_numpy(x.reshape(shape)) for x in ([] if base is None else [base]) + list(models)]
    index = None if base is None else 0
    merged = merge(tensors, method, base_index=index, parameters=parameters, dtype=torch.float32)
    return merged.numpy().reshape(-1)


some_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)
some_weights = pytest.mark.parametrize("weights", WEIGHTS, ids=str)


class Case:
    """A base and three deltas of one shape. `added`: over a base of zeros, so that the delta is seen as it is."""

    def __init__(self, merge: Merge, shape: tuple[int, ...]) -> None:
        self.merge, self.shape = merge, shape
        self.base, self.deltas = normal(1, shape), deltas(shape)
        self.zeros = np.zeros_like(self.base)

    def added(self, method: str, count: int = 3, **parameters: Any) -> F32:
        return theirs(self.merge, method, self.zeros, self.deltas[:count], self.shape, **parameters)

    def models(self, method: str, count: int = 3, *, over_base: bool, **parameters: Any) -> F32:
        models = [self.base + delta for delta in self.deltas[:count]]
        return theirs(self.merge, method, self.base if over_base else None, models, self.shape, **parameters)

    def ours(self, rule: Combine, weights: Sequence[float]) -> F32:
        pairs = list(zip(weights, self.deltas[: len(weights)], strict=True))
        return combine(rule, pairs, base=self.base, shape=self.shape)

    def model(self, rule: Combine, weights: Sequence[float]) -> F32:
        return self.base + self.ours(rule, weights)


@pytest.fixture(params=SHAPES, ids=str)
def case(mergekit: Merge, request: pytest.FixtureRequest) -> Case:
    return Case(mergekit, request.param)


@some_weights
def test_linear(case: Case, weights: tuple[float, ...]) -> None:
    expected = case.models("linear", over_base=False, weight=list(weights))
    agree(case.model(Combine.of("linear"), weights), expected)


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 1.0])
def test_slerp(case: Case, t: float) -> None:
    agree(case.model(Combine.of("slerp", t=t), [1]), case.models("slerp", 1, over_base=True, t=t))


def test_slerp_of_nearly_parallel_models(case: Case) -> None:
    case.deltas = [delta * np.float32(0.01) for delta in case.deltas]
    agree(case.model(Combine.of("slerp", t=0.3), [1]), case.models("slerp", 1, over_base=True, t=0.3))


@some_weights
def test_nuslerp(case: Case, weights: tuple[float, ...]) -> None:
    pair = weights[:2]
    agree(case.ours(Combine.of("nuslerp"), pair), case.added("nuslerp", 2, weight=list(pair)))
    expected = case.models("nuslerp", 2, over_base=False, weight=list(pair))
    agree(case.model(Combine.of("nuslerp", of="models"), pair), expected)


@some_weights
def test_the_mergekit_preset_of_multislerp(case: Case, weights: tuple[float, ...]) -> None:
    rule = Combine.of("multislerp", preset="mergekit")
    agree(case.ours(rule, weights), case.added("multislerp", weight=list(weights)))
    expected = case.models("multislerp", over_base=False, weight=list(weights))
    agree(case.model(Combine.of("multislerp", preset="mergekit", of="models"), weights), expected)


def test_karcher(case: Case) -> None:
    agree(case.model(Combine.of("karcher"), EQUAL), case.models("karcher", over_base=False))


@pytest.mark.parametrize(("density", "gamma"), [(0.3, 0.01), (0.9, 0.0), (0.95, 0.1), (1.0, 0.01)])
@some_weights
def test_breadcrumbs(case: Case, weights: tuple[float, ...], density: float, gamma: float) -> None:
    given: dict[str, Any] = {"density": density, "gamma": gamma}
    rule = Combine.of("breadcrumbs", preset="mergekit", **given)
    agree(case.ours(rule, weights), case.added("breadcrumbs", weight=list(weights), **given))
    rule = Combine.of("breadcrumbs", preset="mergekit", elect="weighted", **given)
    agree(case.ours(rule, weights), case.added("breadcrumbs_ties", weight=list(weights), **given))


def test_the_mergekit_preset_of_breadcrumbs_as_it_stands(case: Case) -> None:
    rule = Combine.of("breadcrumbs", preset="mergekit")
    agree(case.ours(rule, EQUAL), case.added("breadcrumbs", weight=list(EQUAL)))


@some_weights
def test_dare_and_della_without_a_lot(case: Case, weights: tuple[float, ...]) -> None:
    for method, mine, switches in (
        ("dare_linear", "dare", {"merge": "sum"}),
        ("dare_ties", "dare", {"elect": "weighted"}),
        ("della_linear", "della", {"merge": "sum"}),
        ("della", "della", {"elect": "weighted", "merge": "weighted_mean"}),
    ):
        rule = Combine.of(mine, density=1, **switches)
        agree(case.ours(rule, weights), case.added(method, weight=list(weights), density=1.0))


@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
def test_sce(case: Case, share: float) -> None:
    agree(case.ours(Combine.of("sce", select_topk=share), EQUAL), case.added("sce", select_topk=share))


def test_model_stock(case: Case) -> None:
    agree(case.ours(Combine.of("model_stock"), EQUAL), case.added("model_stock"))


@pytest.mark.parametrize("limit", [0.01, 0.3, 10.0])
def test_nearswap(case: Case, limit: float) -> None:
    expected = case.models("nearswap", 1, over_base=True, t=limit)
    agree(case.model(Combine.of("nearswap", limit=limit), [1]), expected)


def test_arcee_fusion(case: Case) -> None:
    expected = case.models("arcee_fusion", 1, over_base=True)
    moved = (case.model(Combine.of("arcee_fusion"), [1]) != case.base, expected != case.base)
    assert np.array_equal(*moved) and moved[0].any()
    agree(case.model(Combine.of("arcee_fusion"), [1]), expected)


@pytest.mark.parametrize("density", [0.3, 0.7])
def test_what_is_kept_by_lot_is_as_much_as_mergekit_keeps(mergekit: Merge, density: float) -> None:
    shape = (400, 500)
    delta = normal(3, shape)
    torch.manual_seed(12345)
    for method, rule in (
        ("dare_linear", Combine.of("dare", density=density)),
        ("della_linear", Combine.of("della", density=density, epsilon=0.15)),
    ):
        given = {"density": density} | ({"epsilon": 0.15} if method.startswith("della") else {})
        expected = theirs(mergekit, method, np.zeros_like(delta), [delta], shape, weight=[1.0], **given)
        found = combine(rule, [(1.0, delta)], shape=shape)
        assert abs((found != 0).mean() - (expected != 0).mean()) < 0.006  # 5 standard deviations of each
        mine, other = (np.abs(x).mean() / np.abs(delta).mean() for x in (found, expected))
        assert mine == pytest.approx(1, abs=0.02) and other == pytest.approx(1, abs=0.02)


# PEFT


@pytest.fixture(scope="module")
def peft() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft.utils import merge_utils
    return merge_utils


def of_peft(merge: Merge, weights: Sequence[float], given: Sequence[F32], *more: Any) -> F32:
    return merge([torch.from_numpy(one) for one in given], torch.tensor(weights), *more).numpy()


@some_shape
@some_weights
def test_add_is_pefts_task_arithmetic(peft: Any, shape: tuple[int, ...], weights: tuple[float, ...]) -> None:
    given = deltas(shape)
    found = combine(Combine.of("add"), list(zip(weights, given, strict=True)))
    agree(found, of_peft(peft.task_arithmetic, weights, given))


@pytest.mark.parametrize("density", [0.1, 0.5])
@some_weights
def test_breadcrumbs_without_outliers_is_pefts_magnitude_prune(
    peft: Any, weights: tuple[float, ...], density: float
) -> None:
    given = deltas((3000,))
    rule = Combine.of("breadcrumbs", density=density, gamma=0)
    found = combine(rule, list(zip(weights, given, strict=True)))
    agree(found, of_peft(peft.magnitude_prune, weights, given, density))


@pytest.mark.filterwarnings("ignore:The density 1.0 is greater")
@some_weights
def test_dare_without_a_lot_is_pefts(peft: Any, weights: tuple[float, ...]) -> None:
    given = deltas((3000,))
    pairs = list(zip(weights, given, strict=True))
    agree(combine(Combine.of("dare", density=1), pairs), of_peft(peft.dare_linear, weights, given, 1.0))
    rule = Combine.of("dare", density=1, elect="unweighted", merge="mean")
    agree(combine(rule, pairs), of_peft(peft.dare_ties, weights, given, 1.0))


@pytest.mark.parametrize("density", [0.3, 0.7])
def test_dare_scales_as_peft_does(peft: Any, density: float) -> None:
    """Both divide by the density: what is kept has the very same values, if not at the same places."""
    delta = np.ones(200_000, np.float32)
    torch.manual_seed(12345)
    expected = of_peft(peft.dare_linear, (1.0,), [delta], density)
    found = combine(Combine.of("dare", density=density), [(1.0, delta)])
    assert set(np.unique(found).tolist()) == set(np.unique(expected).tolist())
    assert abs((found != 0).mean() - (expected != 0).mean()) < 0.011  # 5 standard deviations of each
