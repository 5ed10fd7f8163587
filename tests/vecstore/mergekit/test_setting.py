"""A parameter of a mergekit document: numbers, gradients, filters, as mergekit reads them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pv.registry.errors import UsageError
from pv.vecstore.mergekit.setting import Setting, read_setting

ATTENTION, MLP = "model.layers.1.self_attn.q_proj.weight", "model.layers.1.mlp.up_proj.weight"


def setting(value: Any) -> Setting:
    return read_setting(value, "weight", above=None, most=1e6)


def at(value: Any, tensor: str, depth: float = 0.0) -> float | None:
    entry = setting(value).entry(tensor)
    return None if entry is None else entry.at(depth)


@pytest.mark.parametrize(
    ("gradient", "expected"),
    [
        ([0, 1], [0, 1 / 3, 2 / 3, 1]),
        ([0, 1, 0.5], [0, 2 / 3, 5 / 6, 0.5]),
        ([0.25], [0.25] * 4),
        (0.25, [0.25] * 4),
        ("1e-1", [0.1] * 4),
    ],
)
def test_a_gradient_over_four_layers(gradient: Any, expected: list[float]) -> None:
    assert [at(gradient, MLP, layer / 3) for layer in range(4)] == pytest.approx(expected)


def test_the_first_filter_that_matches_decides() -> None:
    value = [{"filter": "self_attn", "value": 0.25}, {"filter": "mlp", "value": [0, 1]}, {"value": 0.75}]
    assert (at(value, ATTENTION, 1.0), at(value, MLP, 0.5), at(value, "lm_head.weight")) == (0.25, 0.5, 0.75)
    assert at(value[:1], MLP) is None
    assert at([{"filter": "*", "value": 3}], MLP) == 3
    assert at([{"value": 0.75}, value[0]], ATTENTION) == 0.75
    assert at({"filter": "mlp", "value": 2}, MLP) == 2


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.floats(0, 1))
def test_a_gradient_stays_between_its_numbers(numbers: list[float], depth: float) -> None:
    found = at(numbers, MLP, depth)
    assert found is not None
    slack = 1e-9 * max(map(abs, numbers))
    assert min(numbers) - slack <= found <= max(numbers) + slack
    assert at(numbers, MLP, 0.0) == numbers[0] + 0.0
    assert at(numbers, MLP, 1.0) == numbers[-1] + 0.0


@pytest.mark.parametrize(
    "value", [None, True, "x", "nan", float("inf"), [], [1, None], [[1]], {}, [{"value": None}], 1e7]
)
def test_what_is_no_setting(value: Any) -> None:
    with pytest.raises(UsageError, match="weight") as caught:
        setting(value)
    assert caught.value.hint
