"""Gains of planted matrices: what reads or writes a direction is found, and what does not is chance."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.vecstore.probe.gain import CHECKS, DRAWS, Gains, gains_of, matrix_gain, oriented, role_of

D = 64


def normal(*shape: int, seed: int) -> NDArray[np.float64]:
    return np.random.Generator(np.random.Philox(key=seed)).standard_normal(shape)


def drawn() -> dict[str, NDArray[np.float64]]:
    return {"even": normal(DRAWS + CHECKS, D, seed=1)}


@pytest.mark.parametrize("role", ["reads", "writes"])
def test_a_planted_line_is_found(role: Any) -> None:
    v = normal(D, seed=2)
    w = normal(30, D, seed=3)
    w[:3] += 4 * v
    found, _ = matrix_gain("q_proj.weight", 0, role, w if role == "reads" else w.T, v, drawn())
    assert found.deals("even") and 3 <= found.above["even"] <= 6 and (found.lines, found.width) == (30, D)


def test_the_gain_is_the_formula() -> None:
    w, v = normal(10, D, seed=4), normal(D, seed=5)
    expected = D * np.square(w @ v).sum() / np.square(v).sum() / np.square(w).sum()
    assert matrix_gain("a.weight", 0, "reads", w, v, drawn())[0].gain == pytest.approx(expected)
    assert matrix_gain("a.weight", 0, "writes", w.T, 3 * v, drawn())[0].gain == pytest.approx(expected)


def test_of_an_orthogonal_matrix_it_is_1_whatever_the_direction() -> None:
    w = np.linalg.qr(normal(D, D, seed=6))[0]
    assert matrix_gain("a.weight", 0, "reads", w, normal(D, seed=7), drawn())[0].gain == pytest.approx(1)


def together(v: NDArray[np.float64], planted: int) -> Gains:
    found = []
    for at in range(20):
        w = normal(40, D, seed=100 + at)
        w[: 10 if at < planted else 0] += v
        found.append(matrix_gain(f"{at}.weight", at, "reads", w, v, drawn()))
    return gains_of([one for one, _ in found], [chance for _, chance in found], ["norm.weight"])


def test_shares_are_above_their_null_only_where_something_was_planted() -> None:
    v = normal(D, seed=8)
    planted, chance = together(v, 10), together(v, 0)
    share = planted.shares["even"]
    assert share.matrices >= 0.5 and share.more and share.weights == 20 * 40 * D
    assert share.lines == pytest.approx(0.125, abs=0.04) and 0.004 < share.lines_null < 0.025
    assert not chance.shares["even"].more and chance.shares["even"].lines < 0.04
    assert Gains.from_json(json.loads(json.dumps(planted.to_json()))) == planted


@pytest.mark.parametrize(
    ("name", "shape", "role"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (D, D), "reads"),
        ("model.layers.0.self_attn.o_proj.weight", (D, D), "writes"),
        ("model.layers.0.mlp.down_proj.weight", (D, 128), "writes"),
        ("model.layers.0.mlp.down_proj.weight", (32, 128), None),
        ("model.layers.0.mlp.up_proj.weight", (128, D), "reads"),
        ("model.layers.0.mlp.up_proj.bias", (128,), None),
        ("model.layers.0.norm.weight", (D,), None),
        ("model.layers.0.mlp.experts.gate_up_proj", (4, D, 128), None),
    ],
)
def test_roles(name: str, shape: tuple[int, ...], role: str | None) -> None:
    assert role_of(name, shape, D) == role


def test_matrices_of_gpt2_read_and_write_as_their_modules_do() -> None:
    """It has Conv1D, whose weights are (in, out); one of its matrices is square."""
    import torch
    from support.adapters import gpt2_config
    from transformers import GPT2LMHeadModel

    layer = GPT2LMHeadModel(gpt2_config()).eval().transformer.h[1]
    width, v = 16, torch.from_numpy(normal(16, seed=9).astype(np.float32))
    many, roles = {"even": normal(DRAWS + CHECKS, width, seed=1)}, {}
    for name, parameter in layer.named_parameters():
        module = layer.get_submodule(name.rpartition(".")[0])
        weight = oriented(module, parameter).detach()
        role = roles[name] = role_of(name, weight.shape, width)
        if role is not None:
            given = v if role == "reads" else torch.eye(weight.shape[1])
            out = (module(given) - module(torch.zeros_like(given))).detach()
            out = out if role == "reads" else out @ v
            expected = float(width * out.square().sum() / v.square().sum() / weight.square().sum())
            gain = matrix_gain(name, 1, role, weight.numpy(), v.numpy(), many)[0].gain
            assert gain == pytest.approx(expected, rel=1e-4)
    assert {name: role for name, role in roles.items() if role} == {
        "attn.c_attn.weight": "reads", "attn.c_proj.weight": "writes", "mlp.c_fc.weight": "reads",
        "mlp.c_proj.weight": "writes",
    }  # fmt: skip


def test_what_has_no_gain() -> None:
    with pytest.raises(UsageError, match="length 0"):
        matrix_gain("a.weight", 0, "reads", normal(3, D, seed=1), np.zeros(D), drawn())
    with pytest.raises(UsageError, match="no weight matrix"):
        gains_of([], [])
