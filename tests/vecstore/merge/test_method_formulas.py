"""Each method against its formula in a few lines of fp64, written from the papers and without the engine's parts."""

from __future__ import annotations

from math import acos, cos, pi, sin

import numpy as np
import pytest
from numpy.typing import NDArray
from support.merging import combine

from pv.registry.combine import Combine
from pv.registry.errors import UsageError

F64 = NDArray[np.float64]
SHAPE = (40, 50)
SIZE = 2000
WEIGHTS = (0.7, 1.3, 0.4)


def normal(seed: int, scale: float = 1.0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(SIZE, np.float32) * np.float32(scale)


BASE = normal(0)
DELTAS = [normal(9, 0.5) + normal(at, 0.4) for at in (1, 2, 3)]


def ours(rule: Combine, count: int = 3, weights: tuple[float, ...] = WEIGHTS) -> NDArray[np.float32]:
    pairs = list(zip(weights[:count], DELTAS[:count], strict=True))
    return combine(rule, pairs, base=BASE, shape=SHAPE)


def wide(count: int = 3, *, weighted: bool = True) -> list[F64]:
    """The deltas in fp64, times their weights."""
    pairs = zip(WEIGHTS[:count], DELTAS[:count], strict=True)
    return [delta.astype(np.float64) * (weight if weighted else 1) for weight, delta in pairs]


def agree(found: NDArray[np.float32], expected: F64, *, of: F64 | None = None) -> None:
    """To fp32's rounding of each element; or, where a model was made of it, of the model."""
    size = np.abs(expected if of is None else of + expected)
    assert np.all(np.abs(found - expected) <= 1e-6 * size + 2e-7), np.max(np.abs(found - expected))


def arc(a: F64, b: F64, t: float) -> F64:
    angle = acos(float(a @ b) / float(np.linalg.norm(a) * np.linalg.norm(b)))
    first: F64 = (sin((1 - t) * angle) * a + sin(t * angle) * b) / sin(angle)
    return first


def test_linear() -> None:
    agree(ours(Combine.of("linear")), sum(wide(), np.zeros(SIZE)) / sum(WEIGHTS))


@pytest.mark.parametrize("t", [0.0, 0.25, 1.0])
def test_slerp(t: float) -> None:
    base = BASE.astype(np.float64)
    agree(ours(Combine.of("slerp", t=t), 1), arc(base, base + wide(1)[0], t) - base, of=base)


def test_slerp_is_a_straight_line_where_the_two_are_nearly_parallel() -> None:
    small = [(1.0, DELTAS[0] * np.float32(1e-3))]
    found = combine(Combine.of("slerp", t=0.25), small, base=BASE)
    assert np.array_equal(found, small[0][1] * np.float32(0.25))


@pytest.mark.parametrize("of", ["deltas", "models"])
def test_nuslerp(of: str) -> None:
    origin = BASE.astype(np.float64) if of == "models" else np.zeros(SIZE)
    first, second = (origin + delta for delta in wide(2, weighted=False))
    expected = arc(first, second, 1.3 / 2.0) - origin
    agree(ours(Combine.of("nuslerp", of=of), 2), expected, of=origin)


def test_nuslerp_of_parallel_and_opposite_deltas_is_a_straight_line() -> None:
    (x, _, _), rule = DELTAS, Combine.of("nuslerp")
    np.testing.assert_allclose(combine(rule, [(1, x), (3, x * 2)]), x * np.float32(1.75), rtol=1e-6)
    np.testing.assert_allclose(combine(rule, [(1, x), (3, -x)]), x * np.float32(-0.5), rtol=1e-6)
    half = combine(rule, [(1, x), (1, np.zeros_like(x))])
    assert np.array_equal(half, x * np.float32(0.5))


def mean_direction(vectors: list[F64], weights: tuple[float, ...], steps: int) -> F64:
    """The straight mean on the sphere, and so many steps on from it."""
    shares = [weight / sum(weights) for weight in weights]
    units = [vector / np.linalg.norm(vector) for vector in vectors]
    mean = sum((s * u for s, u in zip(shares, units, strict=True)), np.zeros(SIZE))
    mean = mean / np.linalg.norm(mean)
    for _ in range(steps):
        step = np.zeros(SIZE)
        for s, u in zip(shares, units, strict=True):
            angle = acos(float(u @ mean))
            step += s * angle / sin(angle) * (u - cos(angle) * mean)
        length = float(np.linalg.norm(step))
        mean = cos(length) * mean + sin(length) * step / length
    size = sum(s * float(np.linalg.norm(v)) for s, v in zip(shares, vectors, strict=True))
    return np.asarray(size * mean)


@pytest.mark.parametrize("of", ["deltas", "models"])
@pytest.mark.parametrize(("rule", "steps"), [("log", 1), ("none", 0)])
def test_multislerp(of: str, rule: str, steps: int) -> None:
    origin = BASE.astype(np.float64) if of == "models" else np.zeros(SIZE)
    vectors = [origin + delta for delta in wide(weighted=False)]
    expected = mean_direction(vectors, WEIGHTS, steps) - origin
    agree(ours(Combine.of("multislerp", of=of, step=rule)), expected, of=origin)


@pytest.mark.parametrize("of", ["deltas", "models"])
def test_karcher(of: str) -> None:
    origin = BASE.astype(np.float64) if of == "models" else np.zeros(SIZE)
    vectors = [origin + delta for delta in wide(weighted=False)]
    found = ours(Combine.of("karcher", of=of, max_iter=100, tol=1e-12))
    agree(found, mean_direction(vectors, WEIGHTS, 30) - origin, of=origin)
    one_step = ours(Combine.of("karcher", of=of, max_iter=1, tol=1e-12))
    assert np.array_equal(one_step, ours(Combine.of("multislerp", of=of)))


def test_two_on_the_sphere_meet_where_slerp_says() -> None:
    rules = (Combine.of("nuslerp"), Combine.of("karcher", of="deltas", max_iter=100, tol=1e-12))
    equal = [
        delta / np.float32(np.linalg.norm(delta)) for delta in DELTAS[:2]
    ]  # of one length, the two are one
    pairs = list(zip(WEIGHTS[:2], equal, strict=True))
    np.testing.assert_allclose(combine(rules[0], pairs), combine(rules[1], pairs), rtol=1e-5, atol=1e-8)


def test_directions_that_cancel_have_no_mean() -> None:
    for method in ("multislerp", "karcher"):
        with pytest.raises(UsageError, match="directions in tensor 't' cancel") as caught:
            combine(Combine.of(method, of="deltas"), [(1, DELTAS[0]), (1, -DELTAS[0])])
        assert caught.value.hint is not None


def largest(values: F64, k: int) -> list[int]:
    return sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k]


def elected(deltas: list[F64], weights: tuple[float, ...], elect: str, merge: str) -> F64:
    """One element at a time."""
    out = np.zeros(SIZE)
    for i in range(SIZE):
        there = [(w, d[i]) for w, d in zip(weights, deltas, strict=True) if d[i] != 0]
        vote = sum(w * d if elect == "weighted" else d for w, d in there)
        if elect != "none":
            there = [(w, d) for w, d in there if (d > 0) == (vote >= 0)]
        if there:
            divisor = {"sum": 1, "mean": len(there), "weighted_mean": sum(w for w, _ in there)}[merge]
            out[i] = sum(w * d for w, d in there) / divisor
    return out


@pytest.mark.parametrize("elect", ["none", "weighted", "unweighted"])
@pytest.mark.parametrize("merge", ["sum", "mean", "weighted_mean"])
@pytest.mark.parametrize(("density", "gamma"), [(0.2, 0.05), (0.95, 0.2), (1.0, 0.01)])
def test_breadcrumbs(elect: str, merge: str, density: float, gamma: float) -> None:
    k = int(density * SIZE)
    first = min(int(gamma * SIZE), SIZE - k)
    thinned = []
    for delta in wide(weighted=False):
        kept = np.zeros(SIZE)
        at = largest(delta, first + k)[first:]
        kept[at] = delta[at]
        thinned.append(kept)
    rule = Combine.of("breadcrumbs", density=density, gamma=gamma, elect=elect, merge=merge, lambda_=0.5)
    agree(ours(rule), 0.5 * elected(thinned, WEIGHTS, elect, merge))


@pytest.mark.parametrize("method", ["dare", "della"])
@pytest.mark.parametrize("elect", ["none", "weighted", "unweighted"])
@pytest.mark.parametrize("merge", ["sum", "mean", "weighted_mean"])
def test_what_is_thinned_by_lot_is_then_merged(method: str, elect: str, merge: str) -> None:
    """The lot itself is held by test_method_laws: here it is taken from each behaviour alone."""
    pairs = list(zip(WEIGHTS, DELTAS, strict=True))
    alone = Combine.of(method, density=0.5)
    zeros = (0.0, DELTAS[0])
    thinned = []
    for at, (_, delta) in enumerate(pairs):  # at its own place among the operands: there it has its key
        operands = [zeros, zeros, zeros]
        operands[at] = (1.0, delta)
        thinned.append(combine(alone, operands, shape=SHAPE).astype(np.float64))
    rule = Combine.of(method, density=0.5, elect=elect, merge=merge)
    agree(combine(rule, pairs, shape=SHAPE), elected(thinned, WEIGHTS, elect, merge))


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_sce(share: float) -> None:
    deltas = np.stack(wide())
    if share < 1:
        chosen = largest(deltas.var(axis=0), int(share * SIZE))
        mask = np.zeros(SIZE)
        mask[chosen] = 1
        deltas = deltas * mask
    energy = (deltas**2).sum(axis=1, keepdims=True)
    energy = energy / energy.sum()
    sign = np.where(deltas.sum(axis=0) >= 0, 1, -1)
    keep = np.sign(deltas) == sign
    divisor = (energy * keep).sum(axis=0)
    agree(
        ours(Combine.of("sce", select_topk=share)),
        (energy * deltas * keep).sum(axis=0) / np.where(divisor, divisor, 1),
    )


def test_sce_weighs_small_deltas_as_it_weighs_large_ones() -> None:
    """RMS 9e-4 and 3e-4: nine tenths and one tenth. mergekit's smallest energy makes it a half each."""
    a, b = np.full(SIZE, 9e-4, np.float32), np.full(SIZE, 3e-4, np.float32)
    found = combine(Combine.of("sce"), [(1, a), (1, b)])
    np.testing.assert_allclose(found, 0.9 * a + 0.1 * b, rtol=1e-6)


def test_model_stock() -> None:
    deltas = wide()
    units = [delta / np.linalg.norm(delta) for delta in deltas]
    cosine = float(np.mean([units[0] @ units[1], units[0] @ units[2], units[1] @ units[2]]))
    ratio = 3 * cosine / (1 + 2 * cosine)
    assert 0.3 < ratio < 0.95
    agree(ours(Combine.of("model_stock")), ratio * sum(deltas, np.zeros(SIZE)) / 3)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_model_stock_of_equal_deltas_is_that_delta(scale: float) -> None:
    """64 elements of size 1e-4: mergekit's smallest length makes 0.708 of it."""
    delta = normal(1, scale)[:64]
    found = combine(Combine.of("model_stock"), [(1, delta), (1, delta.copy())])
    np.testing.assert_allclose(found, delta, rtol=1e-6)


def test_model_stock_of_opposed_deltas_is_the_base() -> None:
    assert not combine(Combine.of("model_stock"), [(1, DELTAS[0]), (1, -DELTAS[0])]).any()
    assert not combine(Combine.of("model_stock"), [(1, DELTAS[0]), (-1, DELTAS[0])]).any()


@pytest.mark.parametrize(("ratio", "users"), [(0.4, 2), (0.2, 3), (1.0, 1), (0.6, 9)])
def test_consensus(ratio: float, users: int) -> None:
    deltas = wide()
    total = sum(deltas, np.zeros(SIZE))
    used = sum(((np.abs(d) >= ratio * np.abs(total - d)).astype(int) for d in deltas), np.zeros(SIZE, int))
    expected = 0.5 * total * (used >= min(users, 3))
    found = ours(Combine.of("consensus", ratio=ratio, users=users, lambda_=0.5))
    assert 0 < (found != 0).mean() < 1
    agree(found, expected)


def test_nearswap() -> None:
    base, other = BASE.astype(np.float64), BASE + wide(1)[0]
    share = np.minimum(1, 0.2 / np.abs(other - base))
    agree(ours(Combine.of("nearswap", limit=0.2), 1), (1 - share) * base + share * other - base, of=base)


def test_arcee_fusion() -> None:
    base, delta = (x.reshape(SHAPE) for x in (BASE.astype(np.float64), wide(1)[0]))

    def soft(x: F64) -> F64:
        return np.asarray(np.exp(x) / np.exp(x).sum(axis=1, keepdims=True))

    p, q = soft(base + delta), soft(base)
    importance = (np.abs(delta) * (p * np.log(p / q)).sum(axis=1, keepdims=True)).reshape(-1)
    ordered = np.sort(importance)
    low, middle, high = (ordered[quarter * (SIZE - 1) // 4] for quarter in (1, 2, 3))
    keep = importance >= middle + 1.5 * (high - low)
    assert 0.01 < keep.mean() < 0.2
    agree(ours(Combine.of("arcee_fusion"), 1), np.where(keep, delta.reshape(-1), 0.0))


def test_the_tools_of_this_file() -> None:
    a, b = np.zeros(SIZE), np.zeros(SIZE)
    a[0] = b[1] = 1
    assert arc(a, b, 0.5)[0] == pytest.approx(cos(pi / 4))
