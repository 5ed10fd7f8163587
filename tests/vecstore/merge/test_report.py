"""The interference report, against plain numpy on the deltas themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.vectors import (
    Tensors,
    array,
    base_at,
    behaviour,
    kept,
    persona,
    random_f32,
    save,
    small_base,
    store,
    values,
)

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.advice import recommend
from pv.vecstore.merge.delta import delta
from pv.vecstore.merge.module_class import module_class
from pv.vecstore.merge.report import BLOCK, Interference, interference
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector, open_vector

TENSORS = small_base()
UP0, UP1 = (f"model.layers.{i}.mlp.up_proj.weight" for i in range(2))
Q0 = "model.layers.0.self_attn.q_proj.weight"
EMBED, NORM = "model.embed_tokens.weight", "model.norm.weight"
TOUCHED = {"a": (UP0, UP1, Q0), "b": (UP0, UP1, NORM), "c": (EMBED,)}


class World:
    """A base, and a vector for each of a, b and c with its deltas."""

    def __init__(self, folder: Path, tensors: Tensors, deltas: Mapping[str, Mapping[str, F32]]) -> None:
        self.tensors, self.deltas = tensors, deltas
        packs = store(folder)
        self.base: Base = base_at(save(folder / "base", tensors))
        self.ids = {name: kept(self.base, packs, each) for name, each in deltas.items()}
        self.vectors: dict[str, Vector] = {v: open_vector(v, self.base, packs) for v in self.ids.values()}

    def persona(self, rule: Combine | None = None, **weights: float) -> Persona:
        made: dict[str, Behaviour] = {name: behaviour(w, self.ids[name]) for name, w in weights.items()}
        found = persona(self.base, made)
        return found if rule is None else found.with_combine(rule)

    def report(self, rule: Combine | None = None, **weights: float) -> Interference:
        return interference(self.persona(rule, **weights), self.base, self.vectors)

    def flat(self, name: str, weight: float) -> NDArray[np.float64]:
        """A behaviour's delta over the whole model, one tensor after the other."""
        none = {tensor: np.zeros(one.raw.size, np.float32) for tensor, one in sorted(self.tensors.items())}
        whole = {**none, **self.deltas[name]}
        return np.concatenate([whole[tensor] for tensor in none]).astype(np.float64) * weight

    def close(self) -> None:
        for vector in self.vectors.values():
            vector.close()
        self.base.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    deltas = {
        name: {n: random_f32(f"{name} {n}", TENSORS[n].raw.size) for n in tensors}
        for name, tensors in TOUCHED.items()
    }
    for each in deltas["a"].values():
        each[::3] = 0
    made = World(tmp_path_factory.mktemp("world"), TENSORS, deltas)
    yield made
    made.close()


WEIGHTS = st.floats(-2, 2).filter(lambda weight: abs(weight) > 0.01)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(weights=st.fixed_dictionaries(dict.fromkeys("abc", WEIGHTS)))
def test_it_is_what_numpy_says(world: World, weights: dict[str, float]) -> None:
    found = world.report(None, **weights)
    flat = {name: world.flat(name, weight) for name, weight in weights.items()}
    norms = {name: float(np.linalg.norm(each)) for name, each in flat.items()}
    for one in found.behaviours:
        assert one.norm == pytest.approx(norms[one.name], rel=1e-9)
        assert one.moved == np.count_nonzero(flat[one.name])
        assert one.share == pytest.approx(norms[one.name] ** 2 / sum(n**2 for n in norms.values()))
    assert [(pair.a, pair.b) for pair in found.pairs] == list(combinations("abc", 2))
    for pair in found.pairs:
        a, b = flat[pair.a], flat[pair.b]
        both = (a != 0) & (b != 0)
        assert pair.cosine == pytest.approx(float(a @ b) / norms[pair.a] / norms[pair.b], abs=1e-9)
        assert pair.both == both.sum()
        assert pair.overlap == pytest.approx(both.sum() / ((a != 0) | (b != 0)).sum())
        against = (np.sign(a) != np.sign(b))[both]
        assert pair.conflict == (pytest.approx(against.mean()) if both.any() else 0.5)
    total = float(np.linalg.norm(sum(flat.values())))
    assert found.total == pytest.approx(total, rel=1e-6) and found.sum == found.total
    assert found.root_sum_square == pytest.approx(math.sqrt(sum(n**2 for n in norms.values())))
    assert found.largest == max(one.norm for one in found.behaviours)


def test_the_classes_are_parts_of_the_whole(world: World) -> None:
    found = world.report(a=1, b=-0.5, c=2)
    assert [one.where for one in found.classes] == ["embeddings", "attention", "mlp", "norms"]
    assert math.hypot(*(one.total for one in found.classes)) == pytest.approx(found.total)
    assert math.hypot(*(one.base for one in found.classes)) == pytest.approx(found.base)
    touched = {n for names in TOUCHED.values() for n in names}
    base = math.hypot(*(float(np.linalg.norm(values(TENSORS[n]).astype(np.float64))) for n in touched))
    assert found.base == pytest.approx(base)
    assert found.density is None and all(one.trim is None for one in found.classes)


def test_the_total_of_a_rule_is_what_it_adds(world: World) -> None:
    rule = Combine.of("ties", density=0.4)
    found = world.report(rule, a=1, b=0.5)
    made = world.persona(rule, a=1, b=0.5)
    added = [delta(made, world.vectors, name) for name in TENSORS if name in {*TOUCHED["a"], *TOUCHED["b"]}]
    wanted = math.hypot(*(float(np.linalg.norm(one.astype(np.float64))) for one in added if one is not None))
    assert found.total == pytest.approx(wanted)
    plain = np.linalg.norm(world.flat("a", 1) + world.flat("b", 0.5))
    assert found.sum == pytest.approx(float(plain)) and found.sum > found.total
    assert [one.kind for one in recommend(found)] == ["add", "rule"]


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 1.0])
def test_what_a_trim_keeps(world: World, density: float) -> None:
    found = world.report(Combine.of("ties", density=density), a=1, b=-2)
    assert found.density == density
    for one in found.classes:
        moved, kept_, norm2, kept2 = 0, 0, 0.0, 0.0
        for name, weight in (("a", 1.0), ("b", 2.0)):
            for tensor, each in world.deltas[name].items():
                if module_class(tensor) != one.where:
                    continue
                largest = np.sort(np.abs(each.astype(np.float64)) * weight)[::-1]
                k = max(1, int(density * each.size))
                moved += int(np.count_nonzero(each))
                kept_ += int(np.count_nonzero(largest[:k]))
                norm2, kept2 = norm2 + float((largest**2).sum()), kept2 + float((largest[:k] ** 2).sum())
        assert one.trim is not None
        assert one.trim.elements == pytest.approx(kept_ / moved)
        assert one.trim.norm2 == pytest.approx(kept2 / norm2)


def test_a_random_pair_agrees_in_half_and_has_no_cosine(tmp_path: Path) -> None:
    size = 3 * BLOCK + 17  # over the ends of blocks
    name = "model.layers.0.mlp.up_proj.weight"
    noise = {one: random_f32(one, size, seed=seed) for seed, one in enumerate("ab", 3)}
    tensors = {name: array("up", "BF16", size)}
    made = World(tmp_path, tensors, {one: {name: each} for one, each in noise.items()})
    (pair,) = made.report(a=1, b=1).pairs
    assert abs(pair.conflict - 0.5) < 0.01 and abs(pair.cosine) < 0.03 and pair.overlap > 0.99
    made.close()
    twice = World(tmp_path / "twice", tensors, {"a": {name: noise["a"]}, "b": {name: noise["a"] * 2}})
    (pair,) = twice.report(a=1, b=1).pairs
    assert pair.cosine == pytest.approx(1) and pair.conflict == 0
    twice.close()


def test_one_against_itself_with_the_other_sign(world: World) -> None:
    made = persona(world.base, {"a": behaviour(1, world.ids["a"]), "z": behaviour(-1, world.ids["a"])})
    found = interference(made, world.base, world.vectors)
    (pair,) = found.pairs
    assert pair.cosine == pytest.approx(-1) and (pair.conflict, pair.overlap) == (1, 1)
    assert found.total == pytest.approx(0, abs=1e-6 * found.largest)
    assert [one.kind for one in recommend(found)] == ["undo"]


def test_the_same_twice(world: World) -> None:
    made = persona(world.base, {"a": behaviour(1, world.ids["a"]), "z": behaviour(1, world.ids["a"])})
    found = interference(made, world.base, world.vectors)
    assert found.total == pytest.approx(2 * found.largest)
    assert recommend(found)[0].kind == "same"


def test_threads_change_nothing(world: World) -> None:
    rule = Combine.of("ties", density=0.3)
    made = world.persona(rule, a=1, b=-1, c=0.3)
    assert interference(made, world.base, world.vectors, threads=3) == interference(
        made, world.base, world.vectors
    )


def test_nothing_and_one(world: World) -> None:
    none = world.report()
    assert (none.behaviours, none.pairs, none.total) == ((), (), 0)
    assert none.to_json()["relative"] == 0
    assert world.report(a=0, b=1) == world.report(b=1)
    assert [one.kind for one in recommend(world.report(b=1))] == ["alone"]


def test_what_is_not_finite_is_said(tmp_path: Path) -> None:
    odd = random_f32("odd", TENSORS[UP0].raw.size)
    odd[5] = np.inf
    deltas = {"a": {UP0: odd}, "b": {UP0: random_f32("b", odd.size)}}
    made = World(tmp_path, TENSORS, deltas)
    found = made.report(a=1, b=1)
    assert not math.isfinite(found.total)
    assert [one.kind for one in recommend(found)] == ["not finite"]
    made.close()
