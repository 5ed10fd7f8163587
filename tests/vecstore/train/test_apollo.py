"""Apollo against Algorithm 1 written out again in float64, and against what goes wrong in practice."""

from __future__ import annotations

import copy
import io
import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pv.vecstore.train.apollo import FLOOR, Apollo
from pv.vecstore.train.sketch import draw_gaussian, draw_signs, key_of

SHAPES = [(64, 24), (24, 64), (32, 32), (3, 40, 16)]


def parameter(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype))


def gradients(shape: tuple[int, ...], count: int, seed: int = 1) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * 10.0 ** (i % 3 - 2) for i in range(count)]


def feed(optimizer: torch.optim.Optimizer, p: torch.nn.Parameter, grads: list[torch.Tensor]) -> None:
    for grad in grads:
        p.grad = grad.clone().to(p.dtype)
        optimizer.step()


def projection(p: torch.nn.Parameter, refresh: int, name: str, rank: int, seed: int = 0) -> Any:
    """P as a matrix, of signs: (r, k)."""
    k = min(p.shape[-2:])
    dense = torch.zeros(min(rank, k), k, dtype=torch.float64)
    dense[torch.arange(k) % min(rank, k), torch.arange(k)] = draw_signs(
        key_of("pv:apollo:2", seed, refresh, name), k
    ).double()
    return dense.numpy()


def algorithm_1(w: Any, grads: list[torch.Tensor], draw: Any, **o: Any) -> Any:
    """The report's formulas for one matrix, float64, nothing shared with the code under test but P."""
    m = v = 0.0
    previous: float | None = None
    for t, grad in enumerate(grads):
        g = grad.double().numpy()
        g = g.T if g.shape[0] < g.shape[1] else g
        p = draw(t // o["refresh"])
        r = g @ p.T
        m = 0.9 * m + 0.1 * r
        v = 0.999 * v + 0.001 * r * r
        n = (m / (1 - 0.9 ** (t + 1))) / (np.sqrt(v / (1 - 0.999 ** (t + 1))) + o["eps"])
        s = np.linalg.norm(n, axis=1) / np.linalg.norm(r, axis=1)
        u = math.sqrt(g.shape[1] / p.shape[0]) * s[:, None] * g
        norm = np.linalg.norm(u)
        if previous is not None:
            limit = 1.01 * max(previous, FLOOR * math.sqrt(u.size))
            u = u * min(1.0, limit / norm)
        previous = float(np.linalg.norm(u))
        w = (1 - o["lr"] * o["decay"]) * w - o["lr"] * (u if u.shape == w.shape else u.T)
    return w


@pytest.mark.parametrize("shape", [(64, 24), (24, 64), (32, 32)])
def test_follows_the_algorithm(shape: tuple[int, int]) -> None:
    p = parameter(*shape)
    start = p.detach().double().numpy().copy()
    grads = gradients(shape, 12)
    optimizer = Apollo([("w", p)], lr=0.01, rank=6, weight_decay=0.1, refresh=5)
    feed(optimizer, p, grads)
    expected = algorithm_1(
        start, grads, lambda n: projection(p, n, "w", 6), lr=0.01, decay=0.1, eps=1e-8, refresh=5
    )
    moved = np.linalg.norm(expected - start)
    assert np.linalg.norm(p.detach().double().numpy() - expected) < 1e-5 * moved


@pytest.mark.parametrize("shape", [(512, 1408), (1408, 512), (512, 512)])
@pytest.mark.parametrize("rank", [8, 64, 256])
def test_learning_rate_means_what_it_means_for_adamw(shape: tuple[int, int], rank: int) -> None:
    """AdamW's first step has size lr in every element. So has Apollo's, whatever shape and rank.

    Up to √(r / (r − 2)): a channel's factor is one over a chi-distributed length.
    """
    p = parameter(*shape)
    before = p.detach().clone()
    feed(Apollo([("w", p)], lr=1e-2, rank=rank), p, gradients(shape, 1))
    size = float((p.detach() - before).square().mean().sqrt())
    assert size == pytest.approx(1e-2 * math.sqrt(rank / (rank - 2)), rel=0.02)


def test_step_grows_by_one_percent_at_most() -> None:
    """Random directions keep the adapted norm low; a constant direction raises it. The limiter holds it."""
    p = parameter(64, 24)
    noise = gradients((64, 24), 30)
    steady = [torch.ones(64, 24) + 0.1 * g for g in gradients((64, 24), 40, seed=2)]
    optimizer = Apollo([("w", p)], lr=1.0, rank=8)
    sizes = []
    for grad in noise + steady:
        before = p.detach().clone()
        feed(optimizer, p, [grad])
        sizes.append(float((p.detach() - before).norm()))
    ratios = [b / a for a, b in itertools.pairwise(sizes)]
    assert max(ratios) < 1.0101
    assert max(ratios) > 1.0099  # it did hold something back


@pytest.mark.parametrize("first", [0.0, 1e-30, 1e-12])
def test_a_vanishing_first_gradient_does_not_hold_a_tensor_still(first: float) -> None:
    p = parameter(64, 24)
    optimizer = Apollo([("w", p)], lr=1.0, rank=8)
    feed(optimizer, p, [torch.full((64, 24), first)])
    before = p.detach().clone()
    feed(optimizer, p, gradients((64, 24), 1))
    assert float((p.detach() - before).square().mean().sqrt()) >= 0.99 * FLOOR


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("shape", [*SHAPES, (10,)])
def test_a_gradient_that_is_not_finite_changes_nothing(bad: float, shape: tuple[int, ...]) -> None:
    grads = gradients(shape, 6)
    clean, struck = parameter(*shape), parameter(*shape)
    a = Apollo([("w", clean)], lr=0.01, rank=4, weight_decay=0.1)
    b = Apollo([("w", struck)], lr=0.01, rank=4, weight_decay=0.1)
    feed(a, clean, grads)
    for index, grad in enumerate(grads):
        feed(b, struck, [grad])
        if index % 2 == 0:
            poisoned = grad.clone()
            poisoned.view(-1)[index] = bad
            feed(b, struck, [poisoned])
    assert torch.equal(clean, struck)


def test_vectors_get_adamw() -> None:
    for shape in [(40,), (40, 1), (16, 1, 4), ()]:
        ours, theirs = parameter(*shape), parameter(*shape)
        grads = gradients(shape, 10)
        feed(Apollo([("w", ours)], lr=0.01, rank=4, weight_decay=0.1), ours, grads)
        feed(torch.optim.AdamW([theirs], lr=0.01, weight_decay=0.1), theirs, grads)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_three_dimensions_are_a_batch_of_matrices() -> None:
    stack = parameter(3, 40, 16)
    grads = gradients((3, 40, 16), 6)
    single = [torch.nn.Parameter(stack.detach()[i].clone()) for i in range(3)]
    feed(Apollo([("w", stack)], lr=0.01, rank=4, growth=1e9), stack, grads)
    for i, p in enumerate(single):
        feed(Apollo([("w", p)], lr=0.01, rank=4, growth=1e9), p, [grad[i] for grad in grads])
        torch.testing.assert_close(stack.detach()[i], p.detach(), rtol=1e-5, atol=1e-6)


def test_a_transposed_matrix_trains_the_same() -> None:
    tall, grads = parameter(64, 24), gradients((64, 24), 8)
    wide = torch.nn.Parameter(tall.detach().T.clone())
    feed(Apollo([("w", tall)], lr=0.01, rank=6), tall, grads)
    feed(Apollo([("w", wide)], lr=0.01, rank=6), wide, [grad.T for grad in grads])
    torch.testing.assert_close(tall.detach().T, wide.detach(), rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(m=st.integers(2, 40), n=st.integers(2, 40), rank=st.integers(1, 64), seed=st.integers(0, 99))
def test_state_is_never_larger_than_adamws(m: int, n: int, rank: int, seed: int) -> None:
    p = parameter(m, n, seed=seed)
    optimizer = Apollo([("w", p)], lr=0.01, rank=rank)
    feed(optimizer, p, gradients((m, n), 2, seed))
    moments = [optimizer.state[p][key] for key in ("exp_avg", "exp_avg_sq")]
    assert all(x.numel() == max(m, n) * min(rank, m, n) <= p.numel() for x in moments)
    assert all(isinstance(x, torch.Tensor) for x in optimizer.state[p].values())
    assert bool(torch.isfinite(p).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 24), (10,)])
def test_resumes_bit_for_bit_without_pickle(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    grads = gradients(shape, 9)
    whole, first = parameter(*shape, dtype=dtype), parameter(*shape, dtype=dtype)
    feed(Apollo([("w", whole)], lr=0.01, rank=5, refresh=4), whole, grads)

    optimizer = Apollo([("w", first)], lr=0.01, rank=5, refresh=4)
    feed(optimizer, first, grads[:5])
    file = io.BytesIO()
    torch.save({"optimizer": optimizer.state_dict(), "p": first.detach()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)

    second = torch.nn.Parameter(saved["p"])
    resumed = Apollo([("w", second)], lr=0.5, rank=1)  # settings come from the saved state
    resumed.load_state_dict(saved["optimizer"])
    assert resumed.state[second]["exp_avg"].dtype == torch.float32
    feed(resumed, second, grads[5:])
    assert torch.equal(whole, second)


def test_copies_go_on_by_themselves() -> None:
    p, grads = parameter(64, 24), gradients((64, 24), 4)
    optimizer = Apollo([("w", p)], lr=0.01, rank=5)
    feed(optimizer, p, grads[:2])
    other = copy.deepcopy(optimizer)
    q = other.param_groups[0]["params"][0]
    feed(optimizer, p, grads[2:])
    feed(other, q, grads[2:])
    assert torch.equal(p, q)


def test_projections_depend_on_name_seed_and_refresh_alone() -> None:
    def drawn(name: str, seed: int, steps: int) -> torch.Tensor:
        p, q = parameter(64, 24), parameter(40, 24, seed=5)
        optimizer = Apollo([("other", q), (name, p)], lr=0.01, rank=6, seed=seed, refresh=2)
        feed(optimizer, p, gradients((64, 24), steps))
        return optimizer._projections[p][1]

    first = drawn("a", 3, 1)
    assert first.tolist() == draw_signs(key_of("pv:apollo:2", 3, 0, "a"), 24).tolist()
    torch.manual_seed(99)
    assert torch.equal(first, drawn("a", 3, 2))
    for other in (drawn("a", 3, 3), drawn("b", 3, 1), drawn("a", 4, 1)):
        assert not torch.equal(first, other)
    assert abs(float(draw_signs(7, 100_000).mean())) < 0.01
    gaussian = draw_gaussian(7, 400, 800)
    assert abs(float(gaussian.mean())) < 1e-3
    assert float(gaussian.var()) * 400 == pytest.approx(1, rel=0.02)  # N(0, 1/r)


def test_decay_is_decoupled() -> None:
    p = parameter(64, 24)
    before = p.detach().clone()
    feed(Apollo([("w", p)], lr=0.1, rank=4, weight_decay=0.5), p, [torch.zeros(64, 24)])
    torch.testing.assert_close(p.detach(), before * 0.95)


def test_closure_and_parameters_without_gradient() -> None:
    p, still = parameter(8, 4), parameter(8, 4)
    optimizer = Apollo([("p", p), ("still", still)], lr=0.1, rank=2)
    before = p.detach().clone(), still.detach().clone()

    def closure() -> float:
        optimizer.zero_grad()
        loss = p.square().sum()
        torch.autograd.backward(loss)
        return float(loss.detach())

    assert optimizer.step(closure) == pytest.approx(float(before[0].square().sum()))
    assert not torch.equal(p, before[0])
    assert torch.equal(still, before[1])


def test_refuses_what_makes_no_sense() -> None:
    p = parameter(8, 4)
    with pytest.raises(TypeError, match="rank"):
        Apollo([p], lr=0.1)  # type: ignore[call-arg]
    for wrong in (
        {"rank": 0}, {"rank": 2.5}, {"rank": 2, "lr": math.nan}, {"rank": 2, "lr": -1.0}, {"rank": 2, "scale": 0.0},
        {"rank": 2, "scale": "big"}, {"rank": 2, "betas": (1.0, 0.9)}, {"rank": 2, "eps": 0.0},
        {"rank": 2, "refresh": 0}, {"rank": 2, "growth": 0.5}, {"rank": 2, "weight_decay": -1.0},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="must be"):
            Apollo([p], **wrong)
    with pytest.raises(ValueError, match="floating"):
        Apollo([torch.zeros(4, 4, dtype=torch.complex64, requires_grad=True)], rank=2)
    table = torch.nn.Embedding(10, 4, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        Apollo(table.parameters(), rank=2).step()


def test_unnamed_parameters_are_told_apart_by_place() -> None:
    shapes = [(16, 8), (16, 8)]
    a, b = (parameter(*shape) for shape in shapes)
    optimizer = Apollo([a, b], lr=0.1, rank=2)
    grad = gradients((16, 8), 1)[0]
    a.grad, b.grad = grad.clone(), grad.clone()
    optimizer.step()
    assert not torch.equal(a, b)
