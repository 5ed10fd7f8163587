"""Inner products from sketches, against exact ones: within what is said of their error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pv.registry.errors import FormatError
from pv.vecstore.forecast.sketch import ALGORITHM, BANDS, WIDTH, Sketch, Sketching

Tensors = Mapping[str, NDArray[np.float32]]
DEVIATIONS = 6.0  # of the stated standard deviation: one in five hundred million


def sketched(tensors: Tensors) -> Sketch:
    sketching = Sketching(tensors)
    for name, values in tensors.items():
        sketching.add(name, values)
    return sketching.done()


def exact(a: Tensors, b: Tensors) -> float:
    return sum(float(np.vdot(a[name].astype(np.float64), b[name].astype(np.float64))) for name in a)


def bound(a: Sketch, b: Sketch) -> float:
    """The stated standard deviation: in every band sqrt(2 / WIDTH) of the product of the norms there."""
    return math.sqrt(2 / WIDTH * float((a.squares * b.squares).sum()))


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensors, Tensors]:
    """Two sets of tensors of a model: as like each other as may be, spread over few or many elements and layers."""
    layers = draw(st.integers(1, 12))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    alike, spread = draw(st.floats(-1, 1)), draw(st.sampled_from([0.0, 1.0, 3.0]))
    names = [
        "model.embed_tokens.weight",
        *(f"model.layers.{i}.mlp.up_proj.weight" for i in range(layers)),
        "norm",
    ]
    a, b = {}, {}
    for name in names:
        shape = (draw(st.integers(1, 40)), draw(st.integers(1, 40)))
        scale = np.exp(spread * random.standard_normal(shape))
        first, other = (scale * random.standard_normal(shape) for _ in range(2))
        a[name] = first.astype(np.float32)
        b[name] = (alike * first + (1 - abs(alike)) * other).astype(np.float32)
    return a, b


@given(pairs())
def test_inner_products_are_within_the_stated_error(pair: tuple[Tensors, Tensors]) -> None:
    a, b = map(sketched, pair)
    assert abs(a.dot(b) - exact(*pair)) <= DEVIATIONS * bound(a, b) + 1e-9
    for one, tensors in zip((a, b), pair, strict=True):
        assert one.norm == pytest.approx(math.sqrt(exact(tensors, tensors)), rel=1e-6)


@given(pairs())
def test_what_is_kept_of_a_sketch_says_the_same(pair: tuple[Tensors, Tensors]) -> None:
    a, b = map(sketched, pair)
    document = json.loads(json.dumps(a.to_json()))
    assert len(json.dumps(document)) < 8000  # a few KB
    kept = Sketch.of_json(document)
    assert kept is not None and kept.norm == pytest.approx(a.norm, rel=1e-6)
    assert (
        abs(kept.dot(b) - a.dot(b)) <= 0.2 * bound(a, b) + 1e-9
    )  # eight bits: a fifth of the error that is there


def test_the_error_is_about_what_is_said_and_its_mean_is_zero() -> None:
    random = np.random.default_rng(0)
    errors = []
    for number in range(200):
        names = [f"run{number}.layers.{i}.w" for i in range(BANDS)]  # other names: another key
        a = {name: random.standard_normal(600).astype(np.float32) for name in names}
        b = {name: random.standard_normal(600).astype(np.float32) for name in names}
        errors.append((sketched(a).dot(sketched(b)) - exact(a, b)) / math.sqrt(exact(a, a) * exact(b, b)))
    expected = 1 / math.sqrt(BANDS * WIDTH)
    assert np.std(errors) == pytest.approx(expected, rel=0.2)
    assert abs(np.mean(errors)) < 4 * expected / math.sqrt(len(errors))


def test_a_sketch_is_linear_and_does_not_depend_on_pieces_or_order() -> None:
    random = np.random.default_rng(1)
    a = {f"layers.{i}.w": random.standard_normal((30, 50)).astype(np.float32) for i in range(3)}
    doubled = sketched({name: 2 * values for name, values in a.items()})
    assert np.allclose(doubled.sums, 2 * sketched(a).sums)
    backwards = Sketching(a)
    for name in reversed(a):
        backwards.add(name, a[name].reshape(-1))
    assert np.array_equal(backwards.done().sums, sketched(a).sums)


def test_the_bands_are_the_depth() -> None:
    tensors = {f"model.layers.{i}.w": np.full(100, i + 1, np.float32) for i in range(16)}
    found = sketched({**tensors, "model.embed_tokens.weight": np.zeros(4, np.float32)})
    squares = [100.0 * (i + 1) ** 2 for i in range(16)]
    assert found.squares.tolist() == [sum(squares[i : i + 2]) for i in range(0, 16, 2)]


def test_the_key_is_held_still() -> None:
    """Sketches of all registries must compare: another key is another ALGORITHM."""
    found = sketched(
        {"model.layers.0.w": np.arange(1, 9, dtype=np.float32), "model.layers.1.w": np.ones(1, np.float32)}
    )
    held = [(int(i), float(found.sums[0, i])) for i in np.flatnonzero(found.sums[0])]
    assert ALGORITHM == 1 and held == HELD


HELD = [(97, -5.0), (232, 4.0), (255, -6.0), (284, 7.0), (314, -3.0), (381, -2.0), (464, -1.0), (497, 8.0)]


def test_nothing_has_no_direction() -> None:
    none, some = (sketched({"w": np.full(3, x, np.float32)}) for x in (0, 1))
    assert none.cosine(some) == none.cosine(none) == 0 and Sketch.of_json(none.to_json()) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"sums": "no base64!"}, {"sums": "AAAA"}, {"sums": 3}, {"largest": [1.0]}, {"squares": [-1.0] * BANDS},
        {"squares": ["x"] * BANDS}, {"largest": [True] * BANDS}, {"squares": [10**400] * BANDS},
    ],
)  # fmt: skip
def test_what_is_no_sketch_is_refused(change: dict[str, object]) -> None:
    document = sketched({"w": np.ones(3, np.float32)}).to_json()
    with pytest.raises(FormatError):
        Sketch.of_json({**document, **change})
    with pytest.raises(FormatError):
        Sketch.of_json([])


def test_a_sketch_of_another_algorithm_is_none() -> None:
    assert (
        Sketch.of_json({**sketched({"w": np.ones(3, np.float32)}).to_json(), "algorithm": ALGORITHM + 1})
        is None
    )
