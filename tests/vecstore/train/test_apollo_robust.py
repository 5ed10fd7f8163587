"""What goes wrong in other implementations of Apollo, each held not to go wrong here.

| elsewhere | held by (test_... here, or in the file named) |
| --- | --- |
| a zero first gradient all but stops a tensor | test_apollo: a_vanishing_first_gradient_does_not_hold_a_tensor_still |
| one NaN gradient makes a weight NaN for good | test_apollo: a_gradient_that_is_not_finite_changes_nothing |
| the state holds an object: no resume | test_apollo: resumes_bit_for_bit_without_pickle, test_trainers |
| another optimizer's parameters put in (FSDP2): KeyError | test_parameters_may_be_exchanged_before_the_first_step |
| a 1-D share of a matrix: index out of range (FSDP1) | test_a_flat_share_of_a_matrix_trains |
| wide, or tall, matrices crash for some kind of projection | test_every_combination_of_settings_trains_every_shape |
| rank beyond the matrix: more state than AdamW | test_apollo: state_is_never_larger_than_adamws |
| moments in bfloat16 stand still | test_moments_of_bfloat16_weights_do_not_stand_still |
| bfloat16 weights do not move at small rates | test_bfloat16_weights_keep_what_they_moved |
| the device is waited for at every tensor | test_nothing_is_read_from_the_device_tensor_by_tensor |
| projections differ by device, order or global seed | test_apollo: projections_depend_on_name_seed_and_refresh_alone |
| no rank: AdamW without a word | test_apollo: refuses_what_makes_no_sense |
| weight decay is not passed on by the Trainer | test_trainers: trains_with_apollo_and_a_frozen_context |
"""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pv.vecstore.native.library import library, numpy_only
from pv.vecstore.train.apollo import Apollo, ApolloMini
from pv.vecstore.train.sketch import draw_signs, sketch

SHAPES = [(40, 16), (16, 40), (24, 24), (3, 40, 16), (3, 16, 40), (2, 2), (10,)]


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_parameters_may_be_exchanged_before_the_first_step() -> None:
    """accelerate makes the optimizer first, shards the model, and puts the new parameters into its groups."""
    old, new = torch.nn.Parameter(random(40, 16)), torch.nn.Parameter(random(40, 16))
    optimizer = Apollo([("w", old)], lr=0.1, rank=4)
    optimizer.param_groups[0]["params"] = [new]
    before = new.detach().clone()
    new.grad = random(40, 16, seed=1)
    optimizer.step()
    assert not torch.equal(new, before)
    assert set(optimizer.state) == {new}


def test_a_flat_share_of_a_matrix_trains() -> None:
    flat = torch.nn.Parameter(random(640))
    flat.grad = random(640, seed=1)
    Apollo([("w", flat)], lr=0.1, rank=4).step()
    assert not torch.equal(flat, random(640))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_combination_of_settings_trains_every_shape(shape: tuple[int, ...]) -> None:
    kinds = itertools.product(("channel", "tensor"), ("signs", "gaussian"), ("auto", 2.0), (1, 5, 99))
    for factors, projection, scale, rank in kinds:
        p = torch.nn.Parameter(random(*shape))
        optimizer = Apollo([("w", p)], lr=0.1, rank=rank, factors=factors, projection=projection, scale=scale)  # type: ignore[arg-type]
        for step in range(3):
            p.grad = random(*shape, seed=step + 1)
            optimizer.step()
        assert bool(torch.isfinite(p).all())
        assert bool((p != random(*shape)).any())


def test_moments_of_bfloat16_weights_do_not_stand_still() -> None:
    """In bfloat16 an average of ones with beta 0.999 stops at 0.5."""
    for shape in ((8,), (8, 4)):
        p = torch.nn.Parameter(torch.zeros(shape, dtype=torch.bfloat16))
        optimizer = Apollo([("w", p)], lr=0.0, rank=4)
        for _ in range(3000):
            p.grad = torch.ones_like(p)
            optimizer.step()
        assert float(optimizer.state[p]["exp_avg_sq"].min()) == pytest.approx(1 - 0.999**3000, rel=1e-3)


@pytest.mark.parametrize("half", ["stochastic", "master"])
@pytest.mark.parametrize("shape", [(64, 48), (3000,)])
def test_bfloat16_weights_keep_what_they_moved(shape: tuple[int, ...], half: Any) -> None:
    """Of 100 steps of 1e-5 on weights of 0.02, rounding to nearest keeps a sixth."""
    moved = []
    for dtype, how in ((torch.float32, "nearest"), (torch.bfloat16, half), (torch.bfloat16, "nearest")):
        p = torch.nn.Parameter((random(*shape) * 0.02).bfloat16().to(dtype))
        start = p.detach().double().clone()
        optimizer = Apollo([("w", p)], lr=1e-5, rank=48, half=how)  # type: ignore[arg-type]
        for _ in range(100):
            p.grad = torch.ones_like(p)
            optimizer.step()
        moved.append(float((p.detach().double() - start).mean()))
    exact, kept, nearest = moved
    assert kept == pytest.approx(exact, rel=0.05)
    assert abs(nearest) < 0.5 * abs(exact)


def test_stochastic_rounding_is_repeated_and_leaves_what_is_exact() -> None:
    found = []
    for lr in (1e-3, 1e-3, 0.0):
        p = torch.nn.Parameter(random(40, 16).bfloat16())
        optimizer = Apollo([("w", p)], lr=lr, rank=4)
        for step in range(3):
            p.grad = random(40, 16, seed=step + 1).bfloat16()
            optimizer.step()
        found.append(p.detach())
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], random(40, 16).bfloat16())


def test_float16_weights_have_masters() -> None:
    p = torch.nn.Parameter(random(40, 16).half())
    optimizer = Apollo([("w", p)], lr=1e-5, rank=4)
    p.grad = random(40, 16, seed=1).half()
    optimizer.step()
    assert optimizer.state[p]["master"].dtype == torch.float32


class Reads(TorchDispatchMode):
    """Counts tensors that are read as numbers, but for the state's own counters, which are never on a device."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.optimizer, self.count = optimizer, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            own = [s[key] for s in self.optimizer.state.values() for key in ("step", "norm") if key in s]
            self.count += not any(args[0] is x for x in own)
        return func(*args, **(kwargs or {}))


def test_nothing_is_read_from_the_device_tensor_by_tensor() -> None:
    named = [(f"{i}", torch.nn.Parameter(random(*shape))) for i, shape in enumerate(SHAPES)]
    optimizer = Apollo(named, lr=0.1, rank=4, max_norm=1.0)
    for _ in range(2):
        for _, p in named:
            p.grad = random(*p.shape, seed=3)
        with Reads(optimizer) as reads:
            optimizer.step()
        assert reads.count == 0


def test_clipping_is_torchs() -> None:
    """clip_grad_norm_ and then a step, in one; the norm is the same."""
    ours = [(f"{i}", torch.nn.Parameter(random(*shape))) for i, shape in enumerate(SHAPES)]
    theirs = [(name, torch.nn.Parameter(p.detach().clone())) for name, p in ours]
    a, b = Apollo(ours, lr=0.1, rank=4, max_norm=1.0), Apollo(theirs, lr=0.1, rank=4)
    for step in range(3):
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            p.grad, q.grad = (random(*p.shape, seed=step) for _ in range(2))
        norm = torch.nn.utils.clip_grad_norm_([q for _, q in theirs], 1.0)
        a.step()
        b.step()
        assert a.grad_norm == pytest.approx(float(norm), rel=1e-5)
        for (_, p), (_, q) in zip(ours, theirs, strict=True):
            torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)
    ours[0][1].grad = torch.full_like(ours[0][1], math.nan)
    a.step()
    assert math.isnan(a.grad_norm)


@pytest.mark.parametrize("shape", [(64, 24), (24, 64), (3, 40, 16)])
def test_the_whole_gradient_as_sketch_is_its_own_length(shape: tuple[int, ...]) -> None:
    """With rank = k nothing is lost: every channel of the sketch is as long as the gradient's."""
    g, wide = random(*shape), shape[-2] < shape[-1]
    k = min(shape[-2:])
    found, squares = sketch(g, draw_signs(5, k), k, wide=wide)
    torch.testing.assert_close(found.square().sum(-2 if wide else -1, keepdim=True), squares)


@pytest.mark.skipif(library() is None, reason="nothing was compiled")
@pytest.mark.parametrize("shape", [*SHAPES[:-1], (70, 33), (33, 301), (0, 5), (2, 17, 300)])
def test_the_compiled_sketch_has_the_bits_of_torchs(shape: tuple[int, ...]) -> None:
    wide, k = shape[-2] < shape[-1] and min(shape) > 0, min(shape[-2:]) or shape[-1]
    g, signs = random(*shape), draw_signs(5, k)
    for rank in {1, 3, 8, 16, 32, k}:
        rank = min(rank, k)
        compiled = sketch(g, signs, rank, wide=wide)
        with numpy_only():
            assert all(
                torch.equal(a, b) for a, b in zip(compiled, sketch(g, signs, rank, wide=wide), strict=True)
            )


def test_parts_of_channels_add_up() -> None:
    g, signs = random(30, 20), draw_signs(5, 20)
    for rank in (1, 3, 8, 20):
        whole = sketch(g, signs, rank, wide=False)
        a = sketch(g[:, :7], signs[:7], rank, wide=False)
        b = sketch(g[:, 7:], signs[7:], rank, wide=False, start=7)
        for x, y, z in zip(a, b, whole, strict=True):
            torch.testing.assert_close(x + y, z)


@pytest.mark.parametrize("shape", [(64, 48), (48, 64), (512, 128)])
@pytest.mark.parametrize("rank", [4, 16, 48])
def test_a_sketch_shrinks_factors_as_theory_says(shape: tuple[int, int], rank: int) -> None:
    """s_R / s is √(r / k): with `scale="auto"` any rank gives the same size of step, but for √(r / (r - 2)): the mean
    square of 1 / length over random sketches of r numbers."""
    sizes = []
    for r in (rank, min(shape)):
        total = 0.0
        for seed in range(8):
            p = torch.nn.Parameter(torch.zeros(shape))
            optimizer = Apollo([("w", p)], lr=1.0, rank=r, scale=1.0, growth=1e9, seed=seed)
            for step in range(6):
                before = p.detach().clone()
                p.grad = random(*shape, seed=100 * seed + step)
                optimizer.step()
            total += float((p.detach() - before).norm())
        sizes.append(total)
    drawn = math.sqrt(rank / (rank - 2)) if rank < min(shape) else 1.0
    tolerance = 0.03 if rank > 4 else 0.1  # few numbers, and heavy tails
    assert sizes[0] / sizes[1] == pytest.approx(drawn * math.sqrt(rank / min(shape)), rel=tolerance)


def test_mini_has_next_to_no_state_and_adamws_size_of_step() -> None:
    p = torch.nn.Parameter(torch.zeros(128, 64))
    mini = ApolloMini([("w", p)], lr=0.01)
    p.grad = random(128, 64, seed=1)
    mini.step()
    assert sum(x.numel() for x in mini.state[p].values()) == 2 * 128 + 2
    assert float(p.detach().square().mean().sqrt()) == pytest.approx(0.01, rel=0.1)
    assert float((p.detach() / p.grad).std() / (p.detach() / p.grad).mean()) == pytest.approx(0, abs=1e-4)


def test_nothing_else_of_pv_is_loaded_with_it() -> None:
    code = (
        "import sys; from pv import Apollo; "
        "print([m for m in sys.modules if m.split('.')[0] == 'transformers' or m.startswith('pv.vecstore.repo')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
