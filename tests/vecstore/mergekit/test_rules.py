"""mergekit's methods under pv's names, and the folders that stand for a base and its vectors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.vectors import nudged, read_all, save

from pv.registry.combine import METHODS, Combine
from pv.registry.errors import UsageError
from pv.vecstore.checkpoints.align import align
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.merge.methods import combine
from pv.vecstore.merge.share import Place, Share
from pv.vecstore.mergekit.folders import BaseItself, FolderBase, FolderVector, Trimmed, unread
from pv.vecstore.mergekit.mixed import Given
from pv.vecstore.mergekit.rules import RULES, rule_of
from pv.vecstore.vectors.pieces import PIECE


def given(rule: str, weights: tuple[float, ...], **changes: Any) -> Given:
    """Parameters as a document without any leaves them, but for the weights."""
    row = RULES[rule]
    each = {name: (number.default or 0.0,) * len(weights) for name, number in row.each.items()}
    whole = {name: 0.5 if number.default is None else number.default for name, number in row.whole.items()}
    values: dict[str, Any] = {
        "tensor": "x", "models": tuple(f"./{i}" for i in range(len(weights))),
        "each": {**each, **({"weight": weights} if "weight" in each else {})}, "whole": whole,
        "switches": dict(row.switches), "among": row.base == "among",
    }  # fmt: skip
    return Given(**{**values, **changes})


@pytest.mark.parametrize("name", RULES)
def test_every_rule_makes_terms_that_pv_takes(name: str) -> None:
    """Its options are those of the method's row, from the day that there is one."""
    rule = RULES[name]
    if rule.method not in METHODS:
        with pytest.raises(UsageError, match=f"pv has no '{name}'"):
            rule_of(name)
        return
    mixed = rule_of(name).make(given(name, (0.5, 0.25)))
    assert mixed.combine.method == rule.method
    assert Combine.from_json(mixed.combine.to_json()) == mixed.combine


def test_what_is_divided_by_the_sum() -> None:
    assert RULES["linear"].make(given("linear", (1, 3))).weights == (0.25, 0.75)
    assert RULES["linear"].make(given("linear", (1, 2), of_base=1.0)).weights == (0.25, 0.5)
    plain = RULES["linear"].make(given("linear", (1, 2), switches={"normalize": False}))
    assert (plain.weights, plain.itself) == ((1, 2), 2.0)
    scaled = given("task_arithmetic", (1, 3), switches={"normalize": True}, whole={"lambda": 2.0})
    assert RULES["task_arithmetic"].make(scaled).weights == (0.5, 1.5)
    assert RULES["task_arithmetic"].make(given("task_arithmetic", (-1, 3))).weights == (-1, 3)


@pytest.mark.parametrize(
    ("rule", "weights", "words"),
    [
        ("linear", (0, 0), "sum to 0"),
        ("linear", (2, -1), "-1"),
        ("ties", (1, -1), "-1"),
        ("ties", (-2,), "-2"),
    ],
)
def test_what_cannot_be(rule: str, weights: tuple[float, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RULES[rule].make(given(rule, weights))


@pytest.fixture
def pair(tiny_tied: Path, tmp_path: Path) -> Iterator[tuple[FolderBase, FolderVector]]:
    save(tmp_path / "tuned", nudged(read_all(tiny_tied / "model.safetensors"), 3))
    with Checkpoint(tiny_tied) as checkpoint, Checkpoint(tmp_path / "tuned") as tuned:
        base = FolderBase("./base", unread(checkpoint.specs, "base"), checkpoint)
        aligned = align(tuned, unread(checkpoint.specs, "base", apart=True))
        yield base, FolderVector.of("./tuned", "1" * 64, base, aligned)


def test_a_folder_stands_for_a_vector(pair: tuple[FolderBase, FolderVector]) -> None:
    base, vector = pair
    for name in vector.manifest.tensors:
        own = base.tensor(name)
        assert b"".join(piece.tobytes() for piece in base.pieces(name)) == own.raw.tobytes()
        pieces = vector.pieces(name)
        assert pieces.whole
        read = [pieces.next(own.raw[i : i + PIECE]) for i in range(0, max(own.row.numel, 1), PIECE)]
        widened = (np.concatenate(read).astype(np.uint32) << 16).view(np.float32)
        np.testing.assert_array_equal(vector.tau(name, own), widened - own.f32)


def test_a_trim_of_its_own_is_that_of_the_method(pair: tuple[FolderBase, FolderVector]) -> None:
    base, vector = pair
    name = "model.layers.0.mlp.up_proj.weight"
    own = base.tensor(name)
    place = Place(name, own.row.shape, lambda: own.f32)
    tau = vector.tau(name, own)
    trimmed = Trimmed(vector, {name: 0.25}).tau(name, own)
    assert 0 < np.count_nonzero(trimmed) <= tau.size // 4
    kept = trimmed != 0
    np.testing.assert_array_equal(trimmed[kept], tau[kept])
    rule: dict[str, Any] = {"elect": "weighted", "merge": "weighted_mean"}
    both = [Share(0.5, tau), Share(0.75, -2 * tau)]
    halves = [Share(0.5, trimmed), Share(0.75, -2 * trimmed)]
    np.testing.assert_array_equal(
        combine(Combine.of("ties", density=0.25, **rule), both, place),
        combine(Combine.of("ties", density=1.0, **rule), halves, place),
    )


def test_the_base_as_a_vector(pair: tuple[FolderBase, FolderVector]) -> None:
    base, _ = pair
    name = "model.norm.weight"
    own = base.tensor(name)
    np.testing.assert_array_equal(BaseItself.of("f" * 64, base, times=1).tau(name), own.f32)
    assert not BaseItself.of("0" * 64, base, times=0).tau(name).any()
