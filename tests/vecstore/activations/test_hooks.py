"""Reading and steering: any module, any rank, some positions, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pv.registry.errors import UsageError
from pv.vecstore.activations.hooks import Edit, Gate, captured, not_steered, preserving_norm, steered
from pv.vecstore.models.reply_columns import reply_from


class Block(nn.Module):
    """Gives a tuple, as decoder layers of older transformers do, and takes its input by keyword if so called."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, str]:
        return hidden + self.linear(hidden), "cache"


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Block(), Block()])
        self.conv = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:  # (B, T, 6)
        for layer in self.layers:
            hidden, said = layer(hidden=hidden)
            assert said == "cache"
        image: torch.Tensor = self.conv(hidden[:, None])  # (B, 3, T, 6)
        return image


@pytest.fixture
def model() -> Model:
    return Model()


X = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))


def test_captured_is_what_the_module_gives(model: Model) -> None:
    with captured(model, ["layers.0", "layers.1:input", "conv", "layers.1.linear:input[2/3]"]) as seen:
        out = model(X)
    assert torch.equal(seen["layers.0"], seen["layers.1:input"])
    assert torch.equal(seen["conv"], out)
    assert torch.equal(seen["layers.1.linear:input[2/3]"], seen["layers.1:input"][..., 4:])
    assert not seen["conv"].requires_grad


@pytest.mark.parametrize("site", ["layers.0", "layers.1:input"])
def test_a_direction_is_added_everywhere(model: Model, site: str) -> None:
    direction = torch.arange(6.0)
    with captured(model, ["layers.0"]) as plain:
        model(X)
    with torch.no_grad(), steered(model, {site: direction}), captured(model, ["layers.1:input"]) as seen:
        steered_out = model(X)
    assert torch.allclose(seen["layers.1:input"], plain["layers.0"] + direction, atol=1e-6)
    assert not torch.allclose(steered_out, model(X))


def test_four_dimensions(model: Model) -> None:
    with torch.no_grad():
        plain = model(X)
        direction = torch.randn(3, 5, 6)
        with steered(model, {"conv": direction}):
            assert torch.allclose(model(X), plain + direction, atol=1e-6)


def test_one_head_is_steered_and_the_others_are_not(model: Model) -> None:
    with captured(model, ["layers.0.linear:input"]) as plain:
        model(X)
    read = captured(model, ["layers.0.linear:input"])
    with steered(model, {"layers.0.linear:input[1/3]": torch.tensor([1.0, -1.0])}), read as seen:
        model(X)
    moved = seen["layers.0.linear:input"] - plain["layers.0.linear:input"]
    assert torch.allclose(moved, torch.tensor([0.0, 0, 1, -1, 0, 0]).expand_as(moved), atol=1e-6)


def test_positions(model: Model) -> None:
    direction = torch.ones(6)
    moved = {}
    with captured(model, ["layers.0"]) as plain:
        model(X)
    for positions in ("prompt", "reply"):
        edits = [Edit("layers.0", direction, positions)]
        with steered(model, edits), captured(model, ["layers.0"]) as seen, reply_from([1, 4]):
            model(X)
        moved[positions] = (seen["layers.0"] - plain["layers.0"])[..., 0].round()
    assert moved["reply"].tolist() == [[0, 1, 1, 1, 1], [0, 0, 0, 0, 1]]
    assert torch.equal(moved["prompt"] + moved["reply"], torch.ones(2, 5))


def test_where_the_reply_begins_must_be_said(model: Model) -> None:
    with (
        steered(model, [Edit("layers.0", torch.ones(6), "reply")]),
        pytest.raises(UsageError, match="reply begins"),
    ):
        model(X)


def test_nothing_is_left_behind(model: Model) -> None:
    before = model(X)
    with pytest.raises(RuntimeError), steered(model, {"layers.0": torch.ones(6)}), captured(model, ["conv"]):
        raise RuntimeError
    assert torch.equal(model(X), before)
    with pytest.raises(UsageError), steered(model, {"layers.0": torch.ones(6), "layers.9": torch.ones(6)}):
        pass
    assert torch.equal(model(X), before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("site", "direction", "match"),
    [
        ("layers.7", torch.ones(6), "no module"),
        ("layers.0", torch.ones(7), "does not fit"),
        ("layers.0", torch.tensor(1.0), "does not fit"),
        ("layers.0:output", torch.ones(6), "no site"),
        ("layers.0:input[3/3]", torch.ones(6), "no site"),
        ("layers.0:input[0/4]", torch.ones(2), "does not divide"),
        ("layers", torch.ones(6), "gives no tensor"),
    ],
)
def test_bad_sites(model: Model, site: str, direction: torch.Tensor, match: str) -> None:
    with pytest.raises(UsageError, match=match), steered(model, {site: direction}):
        model(X)


def test_turned_not_stretched(model: Model) -> None:
    one, two = torch.randn(6), torch.randn(6)
    edits = [Edit("layers.0", 3 * one), Edit("layers.0", 3 * two)]
    with captured(model, ["layers.0"]) as plain:
        model(X)
    with steered(model, edits, rule="preserve-norm"), captured(model, ["layers.0"]) as seen:
        model(X)
    before, after = plain["layers.0"], seen["layers.0"]
    assert torch.allclose(before.norm(dim=-1), after.norm(dim=-1), atol=1e-5)
    for direction in (one, two):
        assert ((after - before) @ direction).mean() > 0


def test_what_two_directions_share_counts_once() -> None:
    found = torch.randn(4, 6)
    direction = torch.randn(4, 6)
    once = preserving_norm(found, [direction])
    assert torch.allclose(preserving_norm(found, [direction, direction]), once, atol=1e-6)
    assert torch.allclose(preserving_norm(found, [2 * found]), found, atol=1e-6)
    assert torch.allclose(preserving_norm(found, []), found)


class Embedded(nn.Module):
    """Takes tokens, as a language model does, whatever else it is told."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()

    def forward(self, input_ids: torch.Tensor, **_: object) -> torch.Tensor:
        image: torch.Tensor = self.model(torch.nn.functional.one_hot(input_ids, 6).float())
        return image


def test_a_gate_opens_for_some_prompts() -> None:
    model = Embedded()
    prompts = [[0, 0, 1], [5, 5, 4]]
    gate = Gate("model.layers.0:input", torch.nn.functional.one_hot(torch.tensor(0), 6).float(), 0.5)
    assert [gate.opens(model, prompt) for prompt in prompts] == [True, False]
    ids = torch.tensor([[*prompts[0], 2], [*prompts[1], 2]])
    with captured(model, ["model.layers.0"]) as plain:
        model(ids)
    edits = [Edit("model.layers.0", torch.ones(6), "reply", gate)]
    with steered(model, edits), captured(model, ["model.layers.0"]) as seen, reply_from([2], lambda: prompts):
        model(ids)
    moved = (seen["model.layers.0"] - plain["model.layers.0"])[..., 0].round()
    assert moved.tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    with (
        pytest.raises(UsageError, match="reply alone"),
        steered(model, [Edit("model.layers.0", torch.ones(6), "all", gate)]),
    ):
        pass
    with pytest.raises(UsageError, match="which these are"), steered(model, edits), reply_from([2]):
        model(ids)


def test_steering_is_off_inside_not_steered(model: Model) -> None:
    before = model(X)
    with steered(model, {"layers.0": torch.ones(6)}), not_steered():
        assert torch.equal(model(X), before)
