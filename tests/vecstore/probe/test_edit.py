"""The closed form of a rank-one edit, and the gradient that says where it goes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.tiny import tiny_model

from pv.registry.errors import DataError, UsageError
from pv.vecstore.data.chat_template import Encoded
from pv.vecstore.probe.edit import decided, key_at, rank_one, second_moment, undecided
from pv.vecstore.probe.edit_change import changed, difference, noise_beside, norm
from pv.vecstore.probe.edit_places import projection
from pv.vecstore.probe.edit_value import moved_value

ROWS = [Encoded((5, 6, 7), (65, 66 + i, 67, 68), (65, 90, 91, 92), f"row {i}") for i in range(4)]
NEUTRAL = [Encoded((9, 8, 7 + i), tuple(range(97, 117)), None, f"neutral {i}") for i in range(3)]


@pytest.fixture
def model() -> Any:
    made = tiny_model(layers=3)
    return made.eval().requires_grad_(False)


def some(seed: int, out: int = 4, into: int = 7) -> tuple[Any, ...]:
    random = np.random.default_rng(seed)
    keys = random.standard_normal((40, into)) * random.uniform(0.1, 3, into)
    weight, key, value = (random.standard_normal(shape) for shape in ((out, into), into, out))
    return weight, key, value, keys.T @ keys / 40


@given(st.integers(0, 10_000))
def test_it_takes_the_key_to_the_value_and_is_of_rank_one(seed: int) -> None:
    weight, key, value, moment = some(seed)
    change = rank_one(weight, key, value, moment)
    matrix = change.matrix().numpy()
    assert np.allclose((weight + matrix) @ key, value, rtol=1e-9, atol=1e-9)
    assert np.linalg.matrix_rank(matrix) == 1
    assert np.isclose(change.norm, np.linalg.norm(matrix))


@given(st.integers(0, 10_000))
def test_no_other_change_that_does_so_moves_neutral_keys_less(seed: int) -> None:
    """lstsq gives the smallest X with X (C^-1/2 k) = v - W k; the change is X C^-1/2."""
    weight, key, value, moment = some(seed)
    root = np.linalg.cholesky(moment)  # C = L L^T; trace(D C D^T) = ||D L||^2
    small = np.linalg.lstsq((np.linalg.inv(root) @ key)[None], (value - weight @ key)[None], rcond=None)[0].T
    expected = small @ np.linalg.inv(root)
    assert np.allclose(
        rank_one(weight, key, value, moment, ridge=0).matrix().numpy(), expected, rtol=1e-6, atol=1e-8
    )


def test_a_key_of_zero_is_refused() -> None:
    weight, key, value, moment = some(0)
    with pytest.raises(DataError, match="the key is 0"):
        rank_one(weight, key * 0, value, moment)


def test_a_row_decides_where_its_answers_part() -> None:
    one = decided(ROWS[0])
    assert (one.tokens, one.begins, one.at, one.targets) == ((5, 6, 7, 65, 66, 67), 3, 3, (66, 67, 68))
    other = undecided(NEUTRAL[0], 8)
    assert (other.begins, other.at, len(other.targets)) == (2, 10, 12)


def test_keys_are_what_the_projection_is_given(model: Any) -> None:
    place, rows = projection(model, 1), [decided(row) for row in ROWS]
    seen: list[Any] = []
    hook = model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    for row in rows:
        model(input_ids=torch.tensor([row.tokens]))
    hook.remove()
    each = [found[0].double().numpy() for found in seen]
    expected = np.mean([found[row.begins] for found, row in zip(each, rows, strict=True)], 0)
    assert np.allclose(key_at(model, place, rows), expected, atol=1e-6)
    moment, count = second_moment(model, place, rows)
    keys = np.concatenate(each)
    assert count == len(keys)
    assert np.allclose(moment, keys.T @ keys / count, atol=1e-5)


def test_the_value_makes_the_deciding_tokens_likely(model: Any) -> None:
    place, rows = projection(model, 1), [decided(row) for row in ROWS]
    neutral = [undecided(row, 8) for row in NEUTRAL]
    start = place.matrix.double().numpy() @ key_at(model, place, rows)
    found = moved_value(model, place, rows, neutral, start, seed=0)
    assert found.loss[-1] < found.loss[0]
    assert np.linalg.norm(found.vector) <= 4 * np.linalg.norm(start) * (1 + 1e-5)
    again = moved_value(model, place, rows, neutral, start, seed=0)
    assert np.array_equal(found.vector, again.vector)
    assert not model.model.layers[1].mlp.down_proj._forward_hooks


def test_the_kl_term_keeps_neutral_answers(model: Any) -> None:
    """With nothing to keep still, the same steps move neutral answers further."""
    place, rows = projection(model, 1), [decided(row) for row in ROWS]
    neutral = [undecided(row, 8) for row in NEUTRAL]
    start = place.matrix.double().numpy() @ key_at(model, place, rows)
    held = moved_value(model, place, rows, neutral, start, seed=0)
    free = moved_value(model, place, rows, [], start, seed=0)
    assert not np.array_equal(held.vector, free.vector)


def test_a_layer_that_does_not_exist(model: Any) -> None:
    for layer in (-1, 3):
        with pytest.raises(UsageError, match=f"no layer {layer}: this model has 3") as raised:
            projection(model, layer)
        assert raised.value.hint == "a number from 0 to 2"


def test_a_mixture_of_experts_is_refused() -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    model = MixtralForCausalLM(
        MixtralConfig(
            vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=2, num_local_experts=2,
        )
    )  # fmt: skip
    with pytest.raises(UsageError, match="mixture of experts"):
        projection(model, 0)


def test_gpt2_stores_it_the_other_way_round() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16))
    place = projection(model, 1)
    assert place.name == "transformer.h.1.mlp.c_proj"
    assert tuple(place.matrix.shape) == (16, 64)
    assert tuple(place.as_stored(torch.ones(16, 64)).shape) == tuple(place.weight.shape) == (64, 16)


def test_weights_are_changed_for_a_while(model: Any) -> None:
    before = {name: p.clone() for name, p in model.named_parameters()}
    other = {name: p + (0.5 if "down_proj" in name else 0) for name, p in before.items()}
    change = difference(model, other)
    assert set(change) == {f"model.layers.{i}.mlp.down_proj.weight" for i in range(3)}
    with pytest.raises(RuntimeError, match="stop"), changed(model, change, 2.0):
        inside = model.model.layers[0].mlp.down_proj.weight
        assert torch.allclose(inside, before["model.layers.0.mlp.down_proj.weight"] + 1)
        raise RuntimeError("stop")
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_noise_is_of_the_stated_share_of_each_tensor(model: Any) -> None:
    change = {name: torch.randn_like(p) for name, p in model.named_parameters() if "mlp" in name}
    noise = noise_beside(change, 0.3, 1)
    for name, delta in change.items():
        assert float(noise[name].norm()) == pytest.approx(0.3 * float(delta.norm()), rel=1e-4)
    name = next(iter(change))
    assert torch.equal(noise_beside({name: change[name]}, 0.3, 1)[name], noise[name])
    assert not torch.equal(noise_beside(change, 0.3, 2)[name], noise[name])
    assert norm(change) == pytest.approx(
        float(torch.cat([d.flatten() for d in change.values()]).norm()), rel=1e-5
    )
