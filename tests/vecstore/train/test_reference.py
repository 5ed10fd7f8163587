"""The base's distribution kept small: exact where it is whole, below the true divergence where it is not."""

from __future__ import annotations

import pytest
import torch

from pv.vecstore.train.reference import KEPT, Reference


def divergence(base: torch.Tensor, model: torch.Tensor) -> torch.Tensor:
    p, q = torch.log_softmax(base, -1), torch.log_softmax(model, -1)
    return (p.exp() * (p - q)).sum(-1)


def logits(size: int, seed: int, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(7, size, generator=torch.Generator().manual_seed(seed)) * spread


@pytest.mark.parametrize("size", [2, 50, KEPT + 1])
def test_of_a_small_vocabulary_it_is_exact(size: int) -> None:
    base, model = logits(size, 1), logits(size, 2)
    torch.testing.assert_close(
        Reference.of(base).divergence(model), divergence(base, model), rtol=1e-5, atol=1e-6
    )


def test_of_a_large_vocabulary_it_is_never_more_and_close_where_little_is_left_out() -> None:
    base, model = logits(5000, 1, 4.0), logits(5000, 2, 4.0)
    found, true = Reference.of(base).divergence(model), divergence(base, model)
    assert (found <= true + 1e-5).all()
    near = base + 0.1 * logits(5000, 3)
    found, true = Reference.of(base).divergence(near), divergence(base, near)
    assert (found <= true + 1e-6).all()
    assert (found >= 0.5 * true).all()


def test_equal_models_have_none_and_no_gradient() -> None:
    base = logits(400, 1).requires_grad_()
    found = Reference.of(base).divergence(base)
    assert found.abs().max() < 1e-6
    found.sum().backward()
    assert base.grad is not None
    assert base.grad.abs().max() < 1e-6


def test_a_certain_base_gives_finite_numbers() -> None:
    base = torch.full((1, 400), -200.0)
    base[0, 3] = 200.0
    found = Reference.of(base).divergence(logits(400, 2)[:1])
    assert torch.isfinite(found).all()


def test_its_gradient_pulls_back_to_the_base() -> None:
    base, model = logits(300, 1, 5.0)[:1], logits(300, 2, 5.0)[:1]
    reference, before = Reference.of(base), float(divergence(base, model))
    for _ in range(500):
        model = model.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(reference.divergence(model).sum(), model)
        model = (model - 10 * gradient).detach()
    assert float(divergence(base, model)) < 0.05 * before
