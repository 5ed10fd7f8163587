"""What a persona adds to one tensor: weights, terms and modules, in an order that no name can change."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.merging import combine
from support.vectors import base_at, behaviour, kept, persona, random_f32, save, small_base, store

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.registry.persona import Behaviour, Term
from pv.vecstore.merge.delta import delta, holdings
from pv.vecstore.merge.module_factors import factor
from pv.vecstore.merge.plan import plan
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector, open_vector

UP = "model.layers.0.mlp.up_proj.weight"
QUERY = "model.layers.1.self_attn.q_proj.weight"
NORM = "model.norm.weight"


class World:
    """A base and four vectors `v[0]` ... `v[3]`, in order of id. The last one leaves UP alone."""

    def __init__(self, folder: Path) -> None:
        tensors = small_base()
        self.base: Base = base_at(save(folder / "base", tensors))
        packs = store(folder)
        made = []
        for seed in range(4):
            names = [UP, QUERY, NORM] if seed else [QUERY, NORM]
            deltas = {n: random_f32(f"tau {n}", tensors[n].raw.size, seed=seed, spread=6) for n in names}
            for d in deltas.values():
                d[::3] = 0
            made.append(kept(self.base, packs, deltas))
        self.v = sorted(made[1:]) + made[:1]
        self.vectors: Mapping[str, Vector] = {v: open_vector(v, self.base, packs) for v in self.v}

    def tau(self, i: int, name: str = UP) -> F32:
        return self.vectors[self.v[i]].tau(name)

    def delta(
        self, behaviours: Mapping[str, Behaviour], name: str = UP, combine: Combine | None = None
    ) -> F32 | None:
        return delta(persona(self.base, behaviours, combine), self.vectors, name)

    def touches(self, behaviours: Mapping[str, Behaviour], name: str = UP) -> bool:
        return bool(plan(persona(self.base, behaviours), holdings(self.vectors), name))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    for vector in made.vectors.values():
        vector.close()
    made.base.close()


def _bits(x: F32 | None) -> bytes:
    assert x is not None
    return x.tobytes()


def _f(x: float) -> np.float32:
    return np.float32(x)


# Add


def test_weight_1_is_the_vector(world: World) -> None:
    assert _bits(world.delta({"a": behaviour(1, world.v[0])})) == _bits(world.tau(0))


def test_a_weight_is_one_multiplication(world: World) -> None:
    for weight in (0.3, -0.5, 2.0, 1e-20):
        wanted = _f(0) + world.tau(0) * _f(weight)
        assert _bits(world.delta({"a": behaviour(weight, world.v[0])})) == wanted.tobytes()


def test_vectors_follow_in_order_of_id(world: World) -> None:
    weights = {2: 0.7, 0: 0.3, 1: -1.1}
    wanted = _f(0) + world.tau(0) * _f(0.3) + world.tau(1) * _f(-1.1) + world.tau(2) * _f(0.7)
    for order in permutations(weights):
        made = {f"{place}": behaviour(weights[i], world.v[i]) for place, i in enumerate(order)}
        assert _bits(world.delta(made)) == wanted.tobytes()


def test_several_terms(world: World) -> None:
    contrast = Behaviour(0.5, (Term(1.0, world.v[0]), Term(-0.8, world.v[1])))
    wanted = _f(0) + world.tau(0) * _f(0.5) + world.tau(1) * _f(0.5 * -0.8)
    assert _bits(world.delta({"a": contrast})) == wanted.tobytes()


def test_weights_of_one_vector_are_summed_before_anything_is_multiplied(world: World) -> None:
    made = {
        "a": Behaviour(0.1, (Term(1.0, world.v[0]),)),
        "b": Behaviour(2.0, (Term(0.35, world.v[0]), Term(1.0, world.v[1]))),
        "c": Behaviour(-0.3, (Term(1.0, world.v[0]),)),
    }
    summed = math.fsum([0.1, 2.0 * 0.35, -0.3])
    wanted = _f(0) + world.tau(0) * _f(summed) + world.tau(1) * _f(2)
    assert _bits(world.delta(made)) == wanted.tobytes()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6), st.data())
def test_a_behaviour_and_its_negation_leave_nothing(
    world: World, weights: list[float], data: st.DataObject
) -> None:
    """Whatever else there is, in any order: not one bit of it is left."""
    signed = data.draw(st.permutations([sign * w for w in weights for sign in (1, -1)]))
    both = {f"n{i}": behaviour(w, world.v[0]) for i, w in enumerate(signed)}
    assert world.delta(both) is None
    rest = {"z": behaviour(0.4, world.v[1])}
    assert _bits(world.delta({**both, **rest})) == _bits(world.delta(rest))


def test_weight_zero_is_absence(world: World) -> None:
    rest = {"r": behaviour(0.4, world.v[1])}
    for nothing in (
        behaviour(0.0, world.v[0]),
        Behaviour(1.0, (Term(0.0, world.v[0]),)),
        behaviour(1.0, world.v[0], modules={"*mlp*": 0.0}),
        behaviour(1.0, world.v[3]),  # a vector without this tensor
    ):
        assert world.delta({"a": nothing}) is None
        assert _bits(world.delta({"a": nothing, **rest})) == _bits(world.delta(rest))
        for rule in (Combine.of("ties"), Combine.of("ties", density=1.0, merge="sum")):
            assert world.delta({"a": nothing}, combine=rule) is None
            assert _bits(world.delta({"a": nothing, **rest}, combine=rule)) == _bits(
                world.delta(rest, combine=rule)
            )


def test_a_plan_is_empty_where_nothing_moves(world: World) -> None:
    assert world.touches({"a": behaviour(1, world.v[0])})
    assert not world.touches({})
    assert not world.touches({"a": behaviour(0, world.v[0])})
    assert not world.touches({"a": behaviour(1, world.v[3])})
    assert world.touches({"a": behaviour(1, world.v[3])}, NORM)
    assert not world.touches({"a": behaviour(1, world.v[0], modules={"*mlp*": 0})})
    assert not world.touches({"a": behaviour(1, world.v[0])}, "model.embed_tokens.weight")
    assert world.delta({"a": behaviour(1, world.v[0])}, "model.embed_tokens.weight") is None


def test_a_weight_beyond_fp32_is_refused(world: World) -> None:
    with pytest.raises(UsageError, match="finite single-precision"):
        world.delta({"a": Behaviour(1e30, (Term(1e30, world.v[0]),))})


# Modules


def test_module_factors(world: World) -> None:
    made = behaviour(0.5, world.v[0], modules={"*.mlp.*": 0.4, "model.layers.0.*": 3.0, "*norm*": -1.0})
    assert factor(made, UP) == 0.5 * (0.4 * 3.0)
    assert factor(made, QUERY) == 0.5
    assert factor(made, NORM) == -0.5
    wanted = _f(0) + world.tau(0) * _f(0.5 * math.prod([0.4, 3.0]))
    assert _bits(world.delta({"a": made})) == wanted.tobytes()
    assert _bits(world.delta({"a": made}, NORM)) == (_f(0) + world.tau(0, NORM) * _f(-0.5)).tobytes()


def test_module_factors_scale_ties_too(world: World) -> None:
    rule = Combine.of("ties", density=0.5, merge="sum")
    by_module = {"a": behaviour(1.0, world.v[0], modules={"*mlp*": 0.25}), "b": behaviour(1.0, world.v[1])}
    by_weight = {"a": behaviour(0.25, world.v[0]), "b": behaviour(1.0, world.v[1])}
    assert _bits(world.delta(by_module, combine=rule)) == _bits(world.delta(by_weight, combine=rule))
    assert _bits(world.delta(by_module, QUERY, rule)) != _bits(world.delta(by_weight, QUERY, rule))


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        (UP, True),
        ("*", True),
        ("*.up_proj.*", True),
        ("model.layers.[0-3].*", True),
        ("model.layers.?.mlp*", True),
        ("mlp", False),
        ("*.MLP.*", False),
        ("model.layers.1.*", False),
        ("", False),
    ],
)
def test_patterns(world: World, pattern: str, matches: bool) -> None:
    assert factor(behaviour(1.0, world.v[0], modules={pattern: 7.0}), UP) == (7.0 if matches else 1.0)


def test_the_order_of_patterns_does_not_matter() -> None:
    factors = {"*a*": 0.1, "*b*": 0.3, "*c*": 7.7, "*": 1.9}
    vector = "0" * 64
    found = {
        factor(behaviour(0.7, vector, modules={k: factors[k] for k in order}), "abc")
        for order in permutations(factors)
    }
    assert len(found) == 1


# TIES

LAMBDA: dict[str, Any] = {"lambda": 0.7}
RULES = [
    Combine.of("ties"),
    Combine.of("ties", density=0.4, elect="weighted", merge="sum", **LAMBDA),
    Combine.of("ties", density=1.0, elect="unweighted", merge="mean"),
]


@pytest.mark.parametrize("rule", RULES)
def test_ties_takes_behaviours_in_order_of_their_vectors(world: World, rule: Combine) -> None:
    operands = [(w, world.tau(i)) for i, w in enumerate((0.3, -0.9, 1.7))]
    wanted = combine(rule, operands).tobytes()
    for order in permutations(range(3)):
        made = {f"n{place}": behaviour((0.3, -0.9, 1.7)[i], world.v[i]) for place, i in enumerate(order)}
        assert _bits(world.delta(made, combine=rule)) == wanted


@pytest.mark.parametrize("rule", RULES)
def test_a_behaviour_is_one_operand_of_ties(world: World, rule: Combine) -> None:
    """Its terms are summed before the trim."""
    made = {
        "a": Behaviour(0.5, (Term(0.25, world.v[2]), Term(1.0, world.v[0]))),
        "b": behaviour(1.0, world.v[1]),
    }
    inner = _f(0) + world.tau(0) + world.tau(2) * _f(0.25)
    wanted = combine(rule, [(0.5, inner), (1.0, world.tau(1))])
    assert _bits(world.delta(made, combine=rule)) == wanted.tobytes()


def test_ties_refuses_a_weight_without_meaning(world: World) -> None:
    rule = Combine.of("ties", merge="weighted_mean")
    with pytest.raises(UsageError, match="negative"):
        world.delta({"a": behaviour(-1.0, world.v[0])}, combine=rule)


# Names


@st.composite
def crowds(draw: st.DrawFn) -> list[tuple[float, list[tuple[float, int]], float]]:
    """Behaviours that often share vectors: (weight, [(coefficient, vector)], factor of UP)."""
    numbers = st.sampled_from([1.0, -1.0, 0.3, 0.7, -0.55, 1e-3])
    term = st.tuples(numbers, st.integers(0, 2))
    one = st.tuples(numbers, st.lists(term, min_size=1, max_size=3), st.sampled_from([1.0, 1.0, 0.35]))
    return draw(st.lists(one, min_size=2, max_size=4))


@pytest.mark.parametrize("rule", [Combine.of("add"), *RULES])
@given(crowd=crowds(), data=st.data())
def test_names_and_their_order_change_nothing(
    world: World,
    rule: Combine,
    crowd: list[tuple[float, list[tuple[float, int]], float]],
    data: st.DataObject,
) -> None:
    """Not even of behaviours that sum the same vectors with other weights: a persona has one build."""
    made = [
        Behaviour(weight, tuple(Term(c, world.v[i]) for c, i in terms), {"*mlp*": share})
        for weight, terms, share in crowd
    ]
    first = world.delta({f"n{i}": b for i, b in enumerate(made)}, combine=rule)
    shuffled = data.draw(st.permutations(made))
    second = world.delta({f"m{i}": b for i, b in enumerate(shuffled)}, combine=rule)
    assert (None if first is None else first.tobytes()) == (None if second is None else second.tobytes())


def test_one_persona_has_one_delta_however_it_was_made(world: World) -> None:
    """Equal ids, so equal bits: the order in which a mapping was filled is no part of a persona."""
    behaviours = {
        name: behaviour(w, world.v[0]) for name, w in zip("abcde", (0.1, 0.7, 1.3, -0.2, 0.33), strict=True)
    }
    backwards = dict(reversed(behaviours.items()))
    assert persona(world.base, behaviours).id == persona(world.base, backwards).id
    rule = Combine.of("ties", density=1.0, merge="mean")
    assert _bits(world.delta(behaviours, combine=rule)) == _bits(world.delta(backwards, combine=rule))


# Behaviours that leave a tensor alone


def test_a_mean_counts_a_behaviour_that_leaves_the_tensor_alone(world: World) -> None:
    """Its model has the base's weights there: the mean of it and another is half of the other's delta."""
    behaviours = {"a": behaviour(1.0, world.v[0]), "quiet": behaviour(1.0, world.v[3])}
    for rule in (Combine.of("linear"), Combine.of("nuslerp"), Combine.of("nuslerp", of="models")):
        found = world.delta(behaviours, UP, rule)
        assert found is not None
        half = world.tau(0) * np.float32(0.5)
        if rule.options.get("of") == "models":  # on the arc, which is a little further out
            assert np.corrcoef(found, half)[0, 1] > 0.9
        else:
            assert np.array_equal(found, half)
    assert world.delta({"quiet": behaviours["quiet"]}, UP, Combine.of("linear")) is None
    dropped = world.delta(behaviours, UP, Combine.of("consensus"))
    assert dropped is not None and not dropped.any()  # one behaviour of two has a use for it


def test_a_method_without_means_does_not_see_it(world: World) -> None:
    behaviours = {"a": behaviour(1.0, world.v[0]), "quiet": behaviour(1.0, world.v[3])}
    for rule in (Combine.of("ties"), Combine.of("dare"), Combine.of("breadcrumbs")):
        alone = world.delta({"a": behaviours["a"]}, UP, rule)
        together = world.delta(behaviours, UP, rule)
        assert alone is not None and together is not None
        assert np.array_equal(alone, together)


def test_a_factor_of_zero_is_absence_in_a_mean_too(world: World) -> None:
    off = behaviour(1.0, world.v[1], modules={"*.mlp.*": 0.0})
    for rule in (
        Combine.of("linear"),
        Combine.of("nuslerp"),
        Combine.of("karcher"),
        Combine.of("model_stock"),
    ):
        found = world.delta({"a": behaviour(1.0, world.v[0]), "off": off}, UP, rule)
        assert found is not None
        assert np.array_equal(found, world.tau(0)), rule


def test_draws_do_not_hang_on_names_or_company(world: World) -> None:
    rule = Combine.of("dare", density=0.5)
    alone = world.delta({"a": behaviour(1.0, world.v[0])}, UP, rule)
    renamed = world.delta({"z": behaviour(1.0, world.v[0])}, UP, rule)
    other = world.delta({"b": behaviour(1.0, world.v[1])}, UP, rule)
    both = world.delta({"z": behaviour(1.0, world.v[0]), "a": behaviour(1.0, world.v[1])}, UP, rule)
    assert alone is not None and renamed is not None and other is not None and both is not None
    assert np.array_equal(alone, renamed)
    first, second = (alone, other) if world.v[0] < world.v[1] else (other, alone)
    assert np.array_equal(both, (np.float32(0) + first) + second)
