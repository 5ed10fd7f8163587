"""Diffs and interference, against numbers computed another way."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from support.vectors import (
    Tensors,
    array,
    base_at,
    behaviour,
    captured,
    kept,
    nudged,
    persona,
    random_f32,
    save,
    small_base,
    store,
    values,
)

from pv.registry.combine import Combine
from pv.registry.errors import BaseMismatch
from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.merge.compare import compare
from pv.vecstore.merge.diff import Movement, WeightDiff, place
from pv.vecstore.merge.interference import Pair
from pv.vecstore.merge.observe import BLOCK
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector, open_vector

TENSORS = small_base()
EMBED = "model.embed_tokens.weight"
UP0, UP1 = (f"model.layers.{i}.mlp.up_proj.weight" for i in range(2))
Q0, Q1 = (f"model.layers.{i}.self_attn.q_proj.weight" for i in range(2))
NORM = "model.norm.weight"


def weight_diff(
    old: Persona, new: Persona, base: Base, vectors: Mapping[str, Vector], *, progress: Progress | None = None
) -> WeightDiff:
    return compare(old, new, {}, base, vectors, progress=progress).moved


def interference(
    behaviours: Mapping[str, Behaviour], base: Base, vectors: Mapping[str, Vector]
) -> tuple[Pair, ...]:
    empty = persona(base, {})
    return compare(empty, empty, behaviours, base, vectors).pairs


@dataclass(frozen=True)
class World:
    base: Base
    deltas: Mapping[str, Mapping[str, F32]]
    vectors: Mapping[str, Vector]
    a: str
    b: str
    exact: str
    tuned: Tensors

    def diff(self, old: Mapping[str, Behaviour], new: Mapping[str, Behaviour]) -> WeightDiff:
        return weight_diff(persona(self.base, old), persona(self.base, new), self.base, self.vectors)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("world")
    packs = store(folder)
    tuned = nudged(TENSORS, 4, only=[UP0, Q1])
    with base_at(save(folder / "base", TENSORS)) as base:
        a_deltas = {n: random_f32(f"a {n}", TENSORS[n].raw.size) for n in (EMBED, UP0, UP1, Q0)}
        b_deltas = {n: random_f32(f"b {n}", TENSORS[n].raw.size, seed=2) for n in (UP0, Q1, NORM)}
        for delta in (*a_deltas.values(), *b_deltas.values()):
            delta[::5] = 0
        a, b = kept(base, packs, a_deltas), kept(base, packs, b_deltas)
        exact = captured(folder / "ft", tuned, base, packs).id
        vectors = {v: open_vector(v, base, packs) for v in (a, b, exact)}
        yield World(base, {a: a_deltas, b: b_deltas}, vectors, a, b, exact, tuned)
        for vector in vectors.values():
            vector.close()


def _is(change: Movement, where: str, step: F32, before: F32) -> None:
    """`change` says what is true of a step (and of the base there), computed in another way."""
    assert change.where == where
    assert change.elements == step.size
    assert change.changed == sum(x != 0 for x in step.tolist())
    assert change.norm == pytest.approx(math.sqrt(math.fsum(x * x for x in step.tolist())), rel=1e-12)
    size = math.sqrt(math.fsum(x * x for x in before.tolist()))
    assert change.relative == pytest.approx(change.norm / size, rel=1e-12)
    assert change.largest == max(abs(x) for x in step.tolist())


def test_each_tensor_that_moved(world: World) -> None:
    found = world.diff({}, {"x": behaviour(1.0, world.a)})
    assert [c.where for c in found.tensors] == sorted([EMBED, UP0, UP1, Q0])
    for change in found.tensors:
        _is(change, change.where, world.deltas[world.a][change.where], values(TENSORS[change.where]))


def test_the_step_between_two_personas(world: World) -> None:
    old = {"x": behaviour(1.0, world.a), "y": behaviour(0.5, world.b)}
    new = {"x": behaviour(0.25, world.a)}
    found = {c.where: c for c in world.diff(old, new).tensors}
    a, b = world.deltas[world.a], world.deltas[world.b]
    assert set(found) == set(a) | set(b)
    half, quarter = np.float32(0.5), np.float32(0.25)
    for name, change in found.items():
        step = np.zeros(TENSORS[name].raw.size, np.float32)
        step += quarter * a[name] if name in a else 0
        # Operands in order of vector id, in single precision, as a build adds them.
        before = np.zeros_like(step)
        for vector in sorted([world.a, world.b]):
            if name in world.deltas[vector]:
                before = before + world.deltas[vector][name] * (half if vector == world.b else np.float32(1))
        _is(change, name, step - before, values(TENSORS[name]))


def test_a_captured_fine_tune(world: World) -> None:
    found = world.diff({}, {"x": behaviour(1.0, world.exact)})
    assert [c.where for c in found.tensors] == sorted([UP0, Q1])
    for change in found.tensors:
        before = values(TENSORS[change.where])
        _is(change, change.where, values(world.tuned[change.where]) - before, before)


def test_nothing_moved(world: World) -> None:
    x = {"x": behaviour(1.0, world.a)}
    for old, new in [
        ({}, {}),
        (x, x),
        (x, {"renamed": behaviour(1.0, world.a)}),
        (x, {**x, "y": behaviour(0.0, world.b)}),
    ]:
        found = world.diff(old, new)
        assert not found
        assert found.tensors == ()
        assert found.total == Movement("all")
        assert (found.total.norm, found.total.relative) == (0, 0)
        assert found.by_layer() == found.by_module() == ()


def test_there_and_back_are_the_same_size(world: World) -> None:
    x, y = {"x": behaviour(1.0, world.a)}, {"y": behaviour(0.3, world.b)}
    assert world.diff(x, y).tensors == world.diff(y, x).tensors


def test_sums_by_layer_and_module(world: World) -> None:
    found = world.diff({}, {"x": behaviour(1.0, world.a)})
    one = {c.where: c for c in found.tensors}
    assert [c.where for c in found.by_layer()] == ["embed_tokens", "layer 0", "layer 1"]
    assert [c.where for c in found.by_module()] == ["embed_tokens", "mlp.up_proj", "self_attn.q_proj"]
    layer0 = found.by_layer()[1]
    assert layer0.elements == one[UP0].elements + one[Q0].elements
    assert layer0.changed == one[UP0].changed + one[Q0].changed
    assert layer0.norm == pytest.approx(math.hypot(one[UP0].norm, one[Q0].norm))
    assert layer0.base2 == pytest.approx(one[UP0].base2 + one[Q0].base2)
    assert layer0.largest == max(one[UP0].largest, one[Q0].largest)
    up = found.by_module()[1]
    assert up.step2 == pytest.approx(one[UP0].step2 + one[UP1].step2)
    for groups in (found.by_layer(), found.by_module()):
        assert (
            sum(c.elements for c in groups) == found.total.elements == sum(c.elements for c in one.values())
        )
        assert sum(c.step2 for c in groups) == pytest.approx(found.total.step2)


def test_layers_are_sorted_as_numbers() -> None:
    names = [f"model.layers.{i}.mlp.up_proj.weight" for i in (10, 2, 0, 1)]
    changes = WeightDiff(tuple(Movement(name, 1, 1, 1.0, 1.0, 1.0) for name in [*names, "lm_head.weight"]))
    assert [c.where for c in changes.by_layer()] == ["layer 0", "layer 1", "layer 2", "layer 10", "lm_head"]


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("model.layers.3.mlp.up_proj.weight", (3, "mlp.up_proj")),
        ("model.layers.12.self_attn.q_proj.bias", (12, "self_attn.q_proj.bias")),
        ("transformer.h.0.attn.c_attn.weight", (0, "attn.c_attn")),
        ("gpt_neox.layers.7.attention.dense.weight", (7, "attention.dense")),
        ("model.embed_tokens.weight", (None, "embed_tokens")),
        ("lm_head.weight", (None, "lm_head")),
        ("model.norm.weight", (None, "norm")),
        ("layers.x.weight", (None, "layers.x")),
        ("model.players.3.weight", (None, "players.3")),
    ],
)
def test_place(name: str, where: tuple[int | None, str]) -> None:
    assert place(name) == where


def test_progress_counts_tensors(world: World) -> None:
    seen: list[tuple[int, int]] = []
    one, other = persona(world.base, {}), persona(world.base, {"x": behaviour(1.0, world.a)})
    weight_diff(
        one, other, world.base, world.vectors, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(i, 6) for i in range(1, 7)]


@pytest.mark.parametrize("encoding", ["float", "exact"])
def test_a_changed_base_is_an_error_not_a_number(tmp_path: Path, encoding: str) -> None:
    """Names and shapes are right, so only the bytes tell."""
    folder = save(tmp_path / "base", TENSORS)
    packs = store(tmp_path)
    with base_at(folder) as base:
        if encoding == "exact":
            vector_id = captured(tmp_path / "ft", nudged(TENSORS, 4, only=[NORM]), base, packs).id
        else:
            vector_id = kept(base, packs, {NORM: random_f32("norm", 12)})
        save(folder, nudged(TENSORS, 9, only=[NORM], share=1))
        with open_vector(vector_id, base, packs) as vector:
            one, other = persona(base, {}), persona(base, {"x": behaviour(1.0, vector_id)})
            with pytest.raises(BaseMismatch, match=f"'{NORM}'"):
                weight_diff(one, other, base, {vector_id: vector})


# Interference


def _pairs(
    tmp_path: Path, deltas: Mapping[str, Mapping[str, list[float]]], weights: Mapping[str, float]
) -> tuple[Pair, ...]:
    """Interference between behaviours that are these deltas, on tensors UP0 and NORM (cut or filled with 0)."""
    packs = store(tmp_path)
    with base_at(save(tmp_path / "base", TENSORS)) as base, ExitStack() as stack:
        made, vectors = {}, {}
        for name, delta in deltas.items():
            full = {}
            for tensor, numbers in delta.items():
                full[tensor] = np.zeros(TENSORS[tensor].raw.size, np.float32)
                full[tensor][: len(numbers)] = numbers
            vector_id = kept(base, packs, full)
            vectors[vector_id] = stack.enter_context(open_vector(vector_id, base, packs))
            made[name] = behaviour(weights.get(name, 1.0), vector_id)
        return interference(made, base, vectors)


def _pair(tmp_path: Path, a: list[float], b: list[float], *weights: float) -> Pair:
    deltas = {"a": {UP0: a}, "b": {UP0: b}}
    (pair,) = _pairs(tmp_path, deltas, dict(zip(deltas, weights, strict=False)))
    return pair


def test_vectors_that_point_the_same_way(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 2, 0, -4], [2, 4, 0, -8])
    assert (pair.a, pair.b) == ("a", "b")
    assert pair.cosine == pytest.approx(1)
    assert pair.sign_agreement == 1
    assert pair.overlap == 3
    assert pair.norm_a == pytest.approx(math.sqrt(21))
    assert pair.norm_b == pytest.approx(2 * math.sqrt(21))


def test_vectors_that_oppose(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 2, 0, -4], [-1, -2, 0, 4])
    assert pair.cosine == pytest.approx(-1)
    assert pair.sign_agreement == 0


def test_a_weight_turns_and_scales(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 2, 0, -4], [2, 4, 0, -8], 1.0, -0.5)
    assert pair.cosine == pytest.approx(-1)
    assert pair.sign_agreement == 0
    assert pair.norm_b == pytest.approx(math.sqrt(21))


def test_vectors_that_are_orthogonal(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 1, 3], [1, -1, 0])
    assert pair.cosine == pytest.approx(0)
    assert pair.sign_agreement == 0.5
    assert pair.overlap == 2


def test_vectors_that_never_meet(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 0], [0, 1])
    assert (pair.cosine, pair.sign_agreement, pair.overlap) == (0, 0.5, 0)
    (apart,) = _pairs(tmp_path, {"a": {UP0: [3, 4]}, "b": {NORM: [5]}}, {})
    assert (apart.cosine, apart.sign_agreement, apart.overlap) == (0, 0.5, 0)
    assert (apart.norm_a, apart.norm_b) == (5, 5)


def test_a_behaviour_of_weight_zero(tmp_path: Path) -> None:
    pair = _pair(tmp_path, [1, 2], [1, 2], 0.0)
    assert (pair.cosine, pair.norm_a, pair.overlap) == (0, 0, 0)


def test_a_known_angle_over_several_tensors(tmp_path: Path) -> None:
    deltas = {"a": {UP0: [3.0, 0, 1], NORM: [2.0]}, "b": {UP0: [1.0, 5, -1], NORM: [4.0]}}
    (pair,) = _pairs(tmp_path, deltas, {})
    assert pair.cosine == pytest.approx((3 - 1 + 8) / math.sqrt((9 + 1 + 4) * (1 + 25 + 1 + 16)))
    assert pair.sign_agreement == pytest.approx(2 / 3)
    assert pair.overlap == 3


def test_every_pair_in_name_order(tmp_path: Path) -> None:
    deltas = {name: {UP0: [1.0, ord(name)]} for name in "cabd"}
    found = [(p.a, p.b) for p in _pairs(tmp_path, deltas, {})]
    assert found == [("a", "b"), ("a", "c"), ("a", "d"), ("b", "c"), ("b", "d"), ("c", "d")]
    assert _pairs(tmp_path, {"a": {UP0: [1.0]}}, {}) == ()


def test_interference_is_of_the_behaviours_not_of_the_rule(world: World) -> None:
    """And equals a plain computation on ordinary numbers."""
    made = {"x": behaviour(0.5, world.a), "y": behaviour(-2.0, world.b)}
    (pair,) = interference(made, world.base, world.vectors)
    a = np.concatenate([0.5 * world.deltas[world.a].get(n, np.zeros(0, np.float32)) for n in (UP0,)])
    b = np.concatenate([-2.0 * world.deltas[world.b].get(n, np.zeros(0, np.float32)) for n in (UP0,)])
    norms = [
        math.sqrt(math.fsum((w * x) ** 2 for d in world.deltas[v].values() for x in d.tolist()))
        for w, v in ((0.5, world.a), (2.0, world.b))
    ]
    both = (a != 0) & (b != 0)
    dot = math.fsum((a.astype(np.float64) * b.astype(np.float64)).tolist())
    assert pair.cosine == pytest.approx(dot / (norms[0] * norms[1]), rel=1e-6)
    assert pair.norm_a == pytest.approx(norms[0], rel=1e-6)
    assert pair.norm_b == pytest.approx(norms[1], rel=1e-6)
    assert pair.overlap == both.sum()
    assert pair.sign_agreement == pytest.approx((np.sign(a[both]) == np.sign(b[both])).mean())


def test_a_diff_under_ties(world: World) -> None:
    """A diff follows the personas' own rules: the same behaviours under another rule have moved."""
    made = {"x": behaviour(1.0, world.a), "y": behaviour(1.0, world.b)}
    add, ties = persona(world.base, made), persona(world.base, made, Combine.of("ties"))
    found = weight_diff(add, ties, world.base, world.vectors)
    assert found
    assert not weight_diff(ties, ties, world.base, world.vectors)


@pytest.mark.parametrize("threads", [1, 3])
def test_many_behaviours_at_once(tmp_path: Path, threads: int) -> None:
    """Several terms, module factors, both signs, more elements than a block: against plain sums."""
    shape, tensor = (300, 131), "model.layers.0.mlp.up_proj.weight"
    count = shape[0] * shape[1]
    assert count > BLOCK
    deltas = [random_f32(f"d{i}", count, seed=i) for i in range(5)]
    for i, delta in enumerate(deltas):
        delta[i :: i + 2] = 0
    packs = store(tmp_path)
    with (
        base_at(save(tmp_path / "base", {tensor: array("up", "BF16", *shape)})) as base,
        ExitStack() as stack,
    ):
        ids = [kept(base, packs, {tensor: delta}) for delta in deltas]
        vectors = {v: stack.enter_context(open_vector(v, base, packs)) for v in ids}
        made = {
            "a": behaviour(0.5, ids[0]),
            "b": behaviour(-2.0, ids[1]),
            "c": Behaviour(1.0, (Term(1.0, ids[2]), Term(-0.5, ids[3]))),
            "d": Behaviour(3.0, (Term(1.0, ids[4]),), {"*.mlp.*": -0.25}),
            "e": behaviour(0.0, ids[0]),
        }
        empty = persona(base, {})
        found = compare(empty, persona(base, made), made, base, vectors, threads=threads)
        again = compare(empty, persona(base, made), made, base, vectors)
    assert found == again
    wide = [delta.astype(np.float64) for delta in deltas]
    plain = {
        "a": 0.5 * wide[0], "b": -2 * wide[1], "c": wide[2] - 0.5 * wide[3], "d": -0.75 * wide[4], "e": 0 * wide[0],
    }  # fmt: skip
    assert [(pair.a, pair.b) for pair in found.pairs] == list(combinations(plain, 2))
    for pair in found.pairs:
        x, y = plain[pair.a], plain[pair.b]
        both = (x != 0) & (y != 0)
        norms = np.linalg.norm(x), np.linalg.norm(y)
        assert (pair.norm_a, pair.norm_b) == pytest.approx(norms, rel=1e-6)
        assert pair.cosine == pytest.approx(
            x @ y / (norms[0] * norms[1]) if all(norms) else 0, rel=1e-4, abs=1e-7
        )
        assert pair.overlap == both.sum()
        same = (np.sign(x[both]) == np.sign(y[both])).mean() if both.any() else 0.5
        assert pair.sign_agreement == pytest.approx(same, rel=1e-12)
    (moved,) = found.moved.tensors
    assert moved.norm == pytest.approx(np.linalg.norm(sum(plain.values())), rel=1e-6)
