"""The proximal step, neurons as slices of weights, and how few of them carry an effect."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch
from support.misread import misread
from support.tiny import tiny_model

from pv.registry.errors import FormatError, UsageError
from pv.vecstore.evaluate.statistics import Interval
from pv.vecstore.probe.edit_found import Used
from pv.vecstore.probe.sparse_found import Point, SparseRun, Sparsity, claimed
from pv.vecstore.probe.sparse_graft import (
    Curve,
    Fewer,
    Reach,
    change_norms,
    fewer,
    grid,
    part_of,
    random_order,
    reach,
)
from pv.vecstore.probe.sparse_units import units
from pv.vecstore.probe.values import read, written
from pv.vecstore.train.proximal import Penalty, Slices, shrink_groups, shrink_weights

MLP = "model.layers.0.mlp"


@pytest.fixture
def model() -> Any:
    return tiny_model(layers=2)


def random_change(model: Any, seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(p.shape, generator=generator)
        for name, p in model.named_parameters()
        if "layers" in name
    }


def test_weights_are_pulled_by_soft_thresholding() -> None:
    moved = torch.tensor([-2.0, -0.5, 0.0, 0.4, 3.0])
    shrink_weights(moved, 0.5)
    assert torch.equal(moved, torch.tensor([-1.5, 0.0, 0.0, 0.0, 2.5]))


def test_the_group_step_is_that_of_the_group_lasso() -> None:
    """It minimises ||x - d||^2 / 2 + t sqrt(n) ||x||: no x nearby does better."""
    a, b = torch.randn(5, 3, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    b[:, 1] = 0
    a[1] = 1e-3
    before, by = (a.clone(), b.clone()), 0.3
    shrink_groups([(a, 0), (b, 1)], by)
    assert not a[1].any() and not b[:, 1].any()

    def cost(i: int, x: torch.Tensor) -> float:
        d = torch.cat([before[0][i], before[1][:, i]])
        return float((x - d).square().sum() / 2 + by * 7**0.5 * x.norm())

    for i in range(5):
        found = torch.cat([a[i], b[:, i]])
        for _ in range(20):
            assert cost(i, found) <= cost(i, found + 1e-2 * torch.randn(7, dtype=torch.float64)) + 1e-6


def test_a_pull_of_zero_leaves_every_bit() -> None:
    weight = torch.nn.Parameter(torch.randn(3, 3))
    penalty = Penalty(0.0)
    penalty.begin({"w": weight})
    before = weight.detach().clone()
    penalty.step({"w": weight}, 0.1)
    assert torch.equal(weight, before)
    with pytest.raises(UsageError, match="0 or more"):
        Penalty(-1.0)


def test_what_is_in_no_bundle_is_pulled_one_by_one() -> None:
    names = {"w": torch.nn.Parameter(torch.zeros(2, 3)), "n": torch.nn.Parameter(torch.ones(2))}
    penalty = Penalty(1.0, ((Slices("w", 0, 2),),))
    penalty.begin(names)
    with torch.no_grad():
        names["w"][0] = torch.tensor([3.0, 0.0, 4.0])
        names["w"][1] = 0.1
        names["n"][0] = 3.0
    penalty.step(names, 0.5)
    assert torch.allclose(names["w"][0], torch.tensor([3.0, 0.0, 4.0]) * (1 - 0.5 * 3**0.5 / 5))
    assert torch.equal(names["w"][1], torch.zeros(3))
    assert torch.equal(names["n"].detach(), torch.tensor([2.5, 1.0]))


def test_neurons_and_heads_are_slices_of_weights(model: Any) -> None:
    found = units(model)
    assert found.count == 2 * 96
    assert found.neurons[0] == (
        Slices(f"{MLP}.gate_proj.weight", 0, 96, 0, 96),
        Slices(f"{MLP}.up_proj.weight", 0, 96, 0, 96),
        Slices(f"{MLP}.down_proj.weight", 1, 96),
    )
    assert [bundle[0].count for bundle in found.heads] == [4, 2, 4, 2]
    q = model.model.layers[0].self_attn.q_proj.weight
    assert torch.equal(found.heads[0][0].of(q)[1], q[12:24])


def test_gate_and_up_in_one_tensor_are_two_slices() -> None:
    from transformers import Phi3Config, Phi3ForCausalLM

    model = Phi3ForCausalLM(
        Phi3Config(
            vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, pad_token_id=0,
        )
    )  # fmt: skip
    bundle = units(model).neurons[0]
    gate, up = (one.of(model.model.layers[0].mlp.gate_up_proj.weight) for one in bundle[:2])
    weight = model.model.layers[0].mlp.gate_up_proj.weight
    assert torch.equal(gate[3, 0], weight[3])
    assert torch.equal(up[3, 0], weight[27])


def test_a_graft_has_the_chosen_neurons_and_nothing_else(model: Any) -> None:
    change, found = random_change(model), units(model)
    part = part_of(change, found, np.array([3, 96 + 5]))
    down = part[f"{MLP}.down_proj.weight"]
    assert torch.equal(down[:, 3], change[f"{MLP}.down_proj.weight"][:, 3])
    assert int(down.count_nonzero()) == down.shape[0]
    other = part["model.layers.1.mlp.gate_proj.weight"]
    assert torch.equal(other[5], change["model.layers.1.mlp.gate_proj.weight"][5])
    assert int(other.count_nonzero()) == other.shape[1]
    everything = part_of(change, found, np.arange(found.count))
    assert set(everything) == {name for name in change if "mlp" in name}
    assert all(torch.equal(everything[name], change[name]) for name in everything)


def test_neurons_are_measured_by_all_their_weights(model: Any) -> None:
    change, found = random_change(model), units(model)
    norms = change_norms(change, found)
    squares = [
        change[f"{MLP}.{name}.weight"].square().sum(dim)[7]
        for name, dim in (("gate_proj", 1), ("up_proj", 1), ("down_proj", 0))
    ]
    assert norms[7] == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-5)
    assert change_norms({}, found).tolist() == [0.0] * found.count


def test_k50_is_found_where_it_was_planted() -> None:
    ks = grid(1000)
    assert ks[0] == 8 and ks[-1] == 1000
    effects = np.array([[min(k, 100) / 100 + 0.01 * row for row in range(10)] for k in ks])
    whole = np.ones(10) + 0.01 * np.arange(10)
    found = reach(Curve(ks, effects, whole), 0.5)
    assert found.k is not None and found.k == pytest.approx(50, rel=0.25)
    assert found.low is not None and found.high is not None
    assert found.low <= found.k <= found.high
    assert read(Reach, written(found)) == found
    assert reach(Curve(ks, effects * 0.1, whole), 0.5).k is None


def test_fewer_neurons_are_told_from_more() -> None:
    ks, random = grid(1000), np.random.default_rng(0)
    noise = random.standard_normal((len(ks), 20)) / 50

    def curve(enough: int) -> Curve:
        return Curve(ks, np.array([[min(k, enough) / enough] * 20 for k in ks]) + noise, np.ones(20))

    assert fewer(curve(50), curve(500)).verdict == "fewer"
    assert fewer(curve(500), curve(50)).verdict == "not fewer"
    assert fewer(curve(50), curve(50)).verdict == "inconclusive"
    never = Curve(ks, 0 * noise, np.ones(20))
    assert fewer(never, never) == Fewer(None, None, None)
    assert fewer(never, curve(50)) == fewer(curve(50), never) == Fewer(None, None, None)
    assert fewer(curve(50), curve(500), level=0.99).level == 0.99


def test_what_is_often_not_reached_is_not_compared() -> None:
    """Of 20 rows one alone carries anything: a draw without it reaches nothing."""
    ks, one = grid(1000), np.eye(20)[0]
    whole = np.ones(20)
    sure = Curve(ks, np.array([[min(k, 500) / 500] * 20 for k in ks]), whole)
    often = Curve(ks, np.array([min(k, 50) / 50 * 20 * one for k in ks]), whole)
    assert reach(often, 0.5).k is not None
    assert fewer(often, sure) == fewer(sure, often) == Fewer(None, None, None)


def test_effects_that_move_to_attention_need_no_fewer_neurons() -> None:
    """A penalty halves what neurons carry, and k50 of the whole effect is never reached; that of neurons stays."""
    ks = grid(1000)
    effects = np.array([[min(k, 200) / 200] * 20 for k in ks])
    plain, moved = Curve(ks, effects, np.ones(20)), Curve(ks, 0.4 * effects, np.ones(20))
    assert reach(moved, 0.5).k is None
    assert reach(moved.alone, 0.5).k == pytest.approx(reach(plain.alone, 0.5).k)
    assert fewer(moved, plain).verdict == "inconclusive"
    assert fewer(moved.alone, plain.alone).ratio == pytest.approx(1)
    none = Curve(ks, 0 * effects, np.ones(20))
    assert fewer(plain.alone, none.alone) == Fewer(None, None, None)


def run(strength: float, kept: float | None, few: Fewer | None) -> SparseRun:
    some, at = Interval(1.0, 0.5, 1.5, 20), Reach(0.5, 10.0, 5.0, 20.0, 20)
    share = None if kept is None else Interval(kept, 0.0, 2.0, 20)
    return SparseRun(
        strength, 0.5, 0.5, None, 1.0, (2.0, 1.0), some, share, some, some,
        (Point(8, some, some), Point(9, some, None)), at, at, at,
        Fewer(0.1, 0.1, 0.2) if strength else None, some, at, few,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("few", "claim", "words"),
    [
        ([Fewer(None, None, None)], "inconclusive", "no certain number"),
        ([Fewer(0.5, 0.3, 0.9)], "held", "0.50 times as many"),
        ([Fewer(2.0, 1.1, 3.0), Fewer(0.5, 0.3, 0.9)], "held", "strength 0.2 "),
        ([Fewer(2.0, 1.1, 3.0), Fewer(3.0, 1.5, 9.0)], "did not hold", "needs more"),
        ([Fewer(2.0, 1.1, 3.0), Fewer(0.5, 0.3, 1.1)], "inconclusive", "include 1"),
    ],
)
def test_the_claim_is_of_what_neurons_carry(few: list[Fewer], claim: str, words: str) -> None:
    """k50 of the whole effect is surely smaller in all of them: that alone says nothing."""
    runs = (run(0.0, 1.0, None), *(run((i + 1) / 10, 0.9, one) for i, one in enumerate(few)))
    found, why = claimed(runs)
    assert found == claim and words in why


def test_a_penalty_that_loses_the_effect_claims_nothing() -> None:
    for kept in (None, 0.7):
        runs = (run(0.0, 1.0, None), run(0.3, kept, Fewer(0.5, 0.3, 0.9)))
        assert claimed(runs) == ("inconclusive", "no penalty kept 80% of plain training's effect")


def sparsity() -> Sparsity:
    data: dict[str, Used] = {
        name: {"name": name, "id": "0" * 64, "n": 20} for name in ("rows", "training", "neighbours")
    }
    runs = (run(0.0, 1.0, None), run(0.3, 0.9, Fewer(0.5, 0.3, None, 0.98)))
    return Sparsity("f" * 64, "pirate", "neurons", 9, data, runs, "held", "so it is", ("a note",))


def test_a_record_of_another_form_is_refused() -> None:
    assert Sparsity.from_json(json.loads(json.dumps(sparsity().to_json()))) == sparsity()
    for where, document in misread(sparsity().to_json(), derived={"verdict"}):
        with pytest.raises(FormatError):
            pytest.fail(f"{where} is read: {Sparsity.from_json(document)}")


def test_random_orders_are_keyed() -> None:
    assert sorted(random_order(20, 0, 0)) == list(range(20))
    assert random_order(20, 0, 1).tolist() == random_order(20, 0, 1).tolist()
    assert random_order(20, 0, 1).tolist() != random_order(20, 0, 2).tolist()
