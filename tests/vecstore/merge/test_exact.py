"""What was captured comes back: alone at weight 1 through a build, and through an export always, whatever its bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.captured import FAR, OWN, REAL, TUNED, Pair, bits, like, pair
from support.vectors import (
    WHOLE,
    Tensors,
    array,
    behaviour,
    files_below,
    kept,
    part_of,
    put,
    random_f32,
    values,
)

from pv.registry.combine import Combine
from pv.registry.dtypes import DTYPES
from pv.registry.errors import IntegrityError
from pv.registry.persona import ENGINES, Behaviour, Term
from pv.vecstore.merge.build import build, table
from pv.vecstore.merge.export import export
from pv.vecstore.tensors.array import Array
from pv.vecstore.tensors.formats import FLOATS
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.vector import open_vector

ENGINE_1, ENGINE_2 = ENGINES


def odd_patterns(dtype: str) -> list[int]:
    """Zeros, subnormals, the largest, infinities and NaNs with payloads, of either sign."""
    row = DTYPES[dtype]
    sign, top = 1 << (row.bits - 1), ((1 << row.exponent) - 1) << row.mantissa
    plain = [0, 1, (1 << row.mantissa) - 1, 1 << row.mantissa, top - 1, top, top | 1, sign - 1]
    return [*plain, *(sign | one for one in plain)]


@st.composite
def tensors(draw: st.DrawFn, dtype: str, size: int) -> Array:
    """Any bits, the odd ones often."""
    element = st.integers(0, (1 << DTYPES[dtype].bits) - 1) | st.sampled_from(odd_patterns(dtype))
    return bits(dtype, *draw(st.lists(element, min_size=size, max_size=size)))


@st.composite
def checkpoints(draw: st.DrawFn) -> tuple[Tensors, Tensors]:
    """A tensor of each float that a vector can move, and what became of it."""
    sizes = {f"w.{dtype}": (dtype, draw(st.integers(0, 6))) for dtype in sorted(FLOATS)}
    own, tuned = ({n: draw(tensors(*size)) for n, size in sizes.items()} for _ in (0, 1))
    far = (
        {"i": array("i", "I32", 3), "far": bits("BF16", pattern)} for pattern in REAL
    )  # something always moved
    return own | next(far), tuned | next(far)


@settings(max_examples=60)
@given(checkpoints(), st.integers(1, 3), st.sampled_from([1, 20, WHOLE]))
def test_any_bits_come_back(given: tuple[Tensors, Tensors], threads: int, shard_bytes: int) -> None:
    own, tuned = given
    options = {"threads": threads, "shard_bytes": shard_bytes}
    with tempfile.TemporaryDirectory() as folder, pair(Path(folder), own, tuned) as made:
        assert like(made.exported(**options), tuned)
        assert like(made.built(made.alone(), **options), tuned)


@settings(max_examples=60)
@given(st.data(), st.sampled_from(sorted(FLOATS)), st.sampled_from(["BF16", "F16", "F32"]))
def test_any_bits_come_back_in_the_dtype_that_they_have(data: st.DataObject, base: str, dtype: str) -> None:
    """A checkpoint saved in fp32 on a bf16 base is written as it was with --dtype fp32, and so for all."""
    size = data.draw(st.integers(1, 6))
    own, tuned = ({"w": data.draw(tensors(kind, size))} for kind in (base, dtype))
    assume(not like(own, tuned))
    with tempfile.TemporaryDirectory() as folder, pair(Path(folder), own, tuned) as made:
        assert like(made.built(made.alone(dtype=DTYPES[dtype].output or "")), tuned)
        assert like(made.exported(), tuned)


# The pair that was met


def test_the_weight_that_an_fp32_difference_cannot_hold(tmp_path: Path) -> None:
    """One of 106 million of a checkpoint that another trainer made with AdamW in bf16."""
    own, tuned = {"w": bits("BF16", REAL[0])}, {"w": bits("BF16", REAL[1])}
    with pair(tmp_path, own, tuned) as made:
        before = made.built(made.alone(engine=ENGINE_1))
        assert before["w"].raw[0] == 0xB010  # -5.239e-10: what engine 1 wrote, and goes on writing
        assert like(made.built(made.alone()), tuned)
        assert like(made.exported(), tuned)
        wide = values(made.built(made.alone(dtype="fp32"))["w"])
        assert wide[0] == values(tuned["w"])[0] != values(own["w"])[0] + made.vectors[made.exact].tau("w")[0]


# Which recipes are the checkpoint alone


@pytest.fixture
def far(tmp_path: Path) -> Iterator[Pair]:
    with pair(tmp_path, OWN, TUNED) as made:
        yield made


ALONE: dict[str, Callable[[Pair], dict[str, Behaviour]]] = {
    "weight 1": lambda p: {"x": behaviour(1.0, p.exact)},
    "a half and a half": lambda p: {"x": behaviour(0.5, p.exact), "y": behaviour(0.5, p.exact)},
    "two terms of a half": lambda p: {"x": Behaviour(1.0, (Term(0.5, p.exact), Term(0.5, p.exact)))},
    "ten tenths": lambda p: {f"x{i}": behaviour(0.1, p.exact) for i in range(10)},
    "2 and a coefficient of a half": lambda p: {"x": Behaviour(2.0, (Term(0.5, p.exact),))},
    "negated twice": lambda p: {"x": Behaviour(-1.0, (Term(-1.0, p.exact),))},
    "with another at weight 0": lambda p: {"x": behaviour(1.0, p.exact), "y": behaviour(0.0, p.other)},
    "with another and its opposite": lambda p: {
        "x": behaviour(1.0, p.exact), "y": behaviour(0.3, p.other), "z": behaviour(-0.3, p.other),
    },
    "with another below fp32": lambda p: {"x": behaviour(1.0, p.exact), "y": behaviour(1e-60, p.other)},
    "1 to all but fp32's eye": lambda p: {"x": behaviour(1.0 + 1e-12, p.exact)},
    "a factor and its inverse": lambda p: {"x": behaviour(0.25, p.exact, modules={"*": 4.0})},
}  # fmt: skip


@pytest.mark.parametrize("case", ALONE)
def test_whatever_sums_to_it_is_it(far: Pair, case: str) -> None:
    made = far.built(far.of(ALONE[case](far), rounding="nearest", seed=5))
    assert like(made, TUNED)


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("shard_bytes", [1, 500, WHOLE])
def test_threads_and_shards_change_nothing(far: Pair, threads: int, shard_bytes: int) -> None:
    options = {"threads": threads, "shard_bytes": shard_bytes}
    assert like(far.built(far.alone(), **options), TUNED)
    assert like(far.exported(**options), TUNED)
    converted = far.built(far.alone(dtype="fp16"), **options)
    assert like(converted, far.built(far.alone(dtype="fp16"), threads=1))


def test_a_tensor_that_another_touches_is_a_sum_and_the_rest_is_not(far: Pair) -> None:
    """Engine 2 looks at each tensor by itself."""
    some = kept(far.base, far.packs, {"a": random_f32("some", 1200)})
    with open_vector(some, far.base, far.packs) as vector:
        both = {"x": behaviour(1.0, far.exact), "y": behaviour(1.0, some)}
        vectors = {**far.vectors, some: vector}
        found = {
            engine: table(far.of(both, engine=engine), far.base, vectors) for engine in (ENGINE_1, ENGINE_2)
        }
    wanted = far.vectors[far.exact].manifest.tensors
    assert found[ENGINE_2]["a"] == found[ENGINE_1]["a"] != wanted["a"]["ft"]
    assert all(found[ENGINE_2][name] == wanted[name]["ft"] for name in ("b", "c"))
    assert found[ENGINE_1]["b"] != wanted["b"]["ft"]


@pytest.mark.parametrize(
    "sums",
    [
        lambda p: {"x": behaviour(0.5, p.exact)},
        lambda p: {"x": behaviour(-1.0, p.exact)},
        lambda p: {"x": behaviour(1.0000001, p.exact, modules={"b": 0.0})},
        lambda p: {"x": behaviour(1.0, p.exact), "y": behaviour(0.3, p.other)},
        lambda p: {"x": behaviour(1.0, p.other)},
        lambda p: {},
    ],
)
@pytest.mark.parametrize("dtype", ["base", "fp32"])
def test_everything_else_is_as_in_engine_1(tmp_path: Path, sums: Any, dtype: str) -> None:
    own, tuned = ({n: t for n, t in tensors.items() if n != "b"} for tensors in (OWN, TUNED))
    with pair(tmp_path, own, tuned) as made:
        one, two = (made.built(made.of(sums(made), dtype=dtype, engine=engine)) for engine in ENGINES)
    assert like(one, two)


@pytest.mark.parametrize("rule", [Combine.of("ties", density=1.0), Combine.of("ties")])
def test_a_rule_that_is_not_linear_is_as_in_engine_1(far: Pair, rule: Combine) -> None:
    whole = {"x": behaviour(1.0, far.exact, modules={"b": 0.0})}
    one, two = (far.built(far.of(whole, combine=rule, engine=engine)) for engine in ENGINES)
    assert like(one, two)


@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(("dtype", "written"), [("bf16", "BF16"), ("fp16", "F16"), ("fp32", "F32")])
def test_another_dtype_is_rounded_from_its_own_value(
    far: Pair, dtype: str, written: str, rounding: str
) -> None:
    found = far.built(far.alone(dtype=dtype, rounding=rounding, seed=9))
    for name, tensor in TUNED.items():
        wanted = round_to(values(tensor), written, rounding, seed=9, name=name, start=0)
        assert found[name].raw.tobytes() == wanted.tobytes()


def test_what_an_adapter_replaces_comes_back_too(far: Pair) -> None:
    """`modules_to_save` of a LoRA adapter: a tensor kept whole, in another encoding."""
    replaced = put(far.packs, far.base.manifest.id, "lora", [part_of("b", "ft", TUNED["b"])])
    with open_vector(replaced, far.base, far.packs) as vector:
        alone = far.of({"x": behaviour(1.0, replaced)})
        found = table(alone, far.base, {replaced: vector})
        assert found["b"] == vector.manifest.tensors["b"]["ft"]
        assert {n: row for n, row in found.items() if n != "b"} == {
            n: row for n, row in far.base.manifest.tensors.items() if n != "b"
        }


def test_what_moved_is_counted_in_bits(far: Pair) -> None:
    """A zero that changed its sign has moved."""
    made = build(far.alone(), far.base, far.vectors, far.out / "n", side_files={})
    assert made.touched == 3
    differing = sum(int((OWN[n].raw != TUNED[n].raw).sum()) for n in FAR)
    assert made.changed == differing
    said = export(far.vectors[far.exact], far.base, far.out / "e", side_files={})
    assert (said.touched, said.changed, said.weights) == (3, differing, made.weights)
    assert said.files == made.files


# What is not finite


STRANGE = {"w": bits("BF16", 0x7F80, 0xFF80, 0x7FC1, 0xFFFF, 0x3F80)}
PLAIN = {"w": bits("BF16", 0x3F80, 0x3F80, 0x3F80, 0x3F80, 0x3F00)}


def test_what_is_not_finite_comes_back_alone_and_is_an_error_in_a_sum(tmp_path: Path) -> None:
    with pair(tmp_path, PLAIN, STRANGE) as made:
        assert like(made.built(made.alone()), STRANGE)
        assert like(made.exported(), STRANGE)
        wide = values(made.built(made.alone(dtype="fp32"))["w"])
        assert np.array_equal(wide.view(np.uint32), values(STRANGE["w"]).view(np.uint32))
        sums = [
            made.alone(engine=ENGINE_1),
            made.of({"x": behaviour(0.5, made.exact)}),
            made.of({"x": behaviour(1.0, made.exact), "y": behaviour(0.1, made.other)}),
        ]
        for refused in sums:
            with pytest.raises(IntegrityError, match="infinite or undefined"):
                made.built(refused)


def test_a_captured_number_that_the_dtype_cannot_hold_is_an_error(tmp_path: Path) -> None:
    with pair(tmp_path, PLAIN, {"w": bits("BF16", 0x7149, 0x3F80, 0x3F80, 0x3F80, 0x3F80)}) as made:
        with pytest.raises(IntegrityError, match="as F16"):
            made.built(made.alone(dtype="fp16"))
        assert files_below(made.out) == set()
