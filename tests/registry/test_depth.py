"""A factor by depth: points, the line between them, the layers of a model; and how factors are said."""

from __future__ import annotations

import pytest

from pv.registry.depth import Depth, stacks
from pv.registry.errors import UsageError
from pv.registry.module_words import module_words
from pv.vecstore.merge.module_factors import matches


def names(count: int, prefix: str = "model.layers.") -> list[str]:
    inside = ["self_attn.q_proj.weight", "mlp.experts.3.up_proj.weight"]
    return [f"{prefix}{i}.{name}" for i in range(count) for name in inside] + ["model.embed_tokens.weight"]


def test_a_profile_is_its_points_and_straight_lines_between_them() -> None:
    depth = Depth.of("0.25:0,0.5:1,1:0.5")
    found = [depth.at(x) for x in (0, 0.25, 0.375, 0.5, 0.75, 1)]
    assert found == [0, 0, 0.5, 1, 0.75, 0.5]
    assert Depth.of({0.25: 0, 0.5: 1, 1: 0.5}) == depth
    assert str(depth) == "0.25:0,0.5:1,1:0.5"
    assert Depth.of("0.5:3").at(0) == Depth.of("0.5:3").at(1) == 3


@pytest.mark.parametrize("count", [2, 3, 12, 101])
def test_each_layer_has_one_pattern_and_no_other_tensor_has_any(count: int) -> None:
    tensors = names(count)
    factors = Depth.of("0:0,1:1").factors(tensors)
    assert len(factors) == count
    for tensor in tensors:
        found = [factor for pattern, factor in factors.items() if matches(pattern, tensor)]
        parts = tensor.split(".")
        assert found == ([int(parts[2]) / (count - 1)] if "layers" in parts else [])


def test_stacks_are_counted_each_by_itself() -> None:
    tensors = [*names(4, "encoder.block."), *names(2, "decoder.block."), "merger.0.weight", "merger.2.weight"]
    assert stacks(tensors) == {"encoder.block.": 4, "decoder.block.": 2}
    assert Depth.of("0:0,1:3").factors(tensors)["encoder.block.2.*"] == 2
    assert stacks(["h.0.a", "h.1.a"]) == {"h.": 2}
    with pytest.raises(UsageError, match="no numbered layers"):
        Depth.of("0:1").factors(["a.weight", "b.0.weight"])


def test_no_points_are_none() -> None:
    with pytest.raises(UsageError, match="needs a point"):
        Depth.of({})


def test_factors_on_a_line_are_one_item() -> None:
    def said(profile: str, count: int = 30) -> str:
        return module_words(Depth.of(profile).factors(names(count)))

    assert said("0:0.5,1:1") == "model.layers.{0..29}.* × 0.5 to 1"
    assert said("0:2") == "model.layers.{0..29}.* × 2"
    assert said("0:0,0.5:1,1:1", 31) == "model.layers.{0..15}.* × 0 to 1, model.layers.{16..30}.* × 1"
    assert said("0:0.5,1:1", 2) == "model.layers.0.* × 0.5, model.layers.1.* × 1"
    both = {**Depth.of("0:0,1:1").factors(names(5)), "*.mlp.*": 0.5, "model.layers.7.*": 0.0}
    assert module_words(both) == "*.mlp.* × 0.5, model.layers.{0..4}.* × 0 to 1, model.layers.7.* × 0"


def test_of_many_factors_the_first_are_said() -> None:
    many = {f"model.layers.{i}.mlp.*": float(i * i) for i in range(28)}
    assert module_words(many).endswith("model.layers.3.mlp.* × 9, … 28 module factors")
    assert len(module_words(many, most=None).split(", ")) == 28
    assert module_words(many, lambda pattern: f"`{pattern}`").startswith("`model.layers.0.mlp.*` × 0, ")
    assert module_words({"model.layers.01.*": 1.0, "layers": 2.0}) == "layers × 2, model.layers.01.* × 1"
    assert module_words(None) == module_words({}) == "none"
