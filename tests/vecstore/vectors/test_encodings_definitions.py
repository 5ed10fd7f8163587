"""Each encoding's tau, bit for bit, against its definition written out element by element; and what it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import Parts, decoded, delta, random_f32, size_of

from pv.registry.errors import FormatError, UsageError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors import encodings
from pv.vecstore.vectors.encodings import by_name, lora, lowrank, sparse, ternary


def floats(array: Array) -> F32:
    return to_f32(array.raw, array.dtype)


def array(values: F32, dtype: str, *shape: int) -> Array:
    flat = np.ascontiguousarray(values, np.float32).reshape(-1)
    return Array(dtype, shape, round_to(flat, dtype, "nearest", seed=0, name="", start=0))


def error(encoding: str, options: Mapping[str, Any], tau: F32, shape: tuple[int, ...]) -> float:
    parts = by_name(encoding).encode(tau, shape, **options)
    return float(np.linalg.norm(decoded(encoding, parts, shape).astype(np.float64) - tau))


# ------------------------------------------------------------------------- lora


def product(a: Array, b: Array, s: np.float32) -> list[np.float32]:
    """The definition, one fp32 operation at a time."""
    rank, columns = a.shape
    left, right = floats(b).reshape(-1, rank), floats(a).reshape(rank, columns)
    out = []
    for i in range(len(left)):
        for j in range(columns):
            total = np.float32(0)
            for k in range(rank):
                total = np.float32(total + np.float32(left[i, k] * right[k, j]))
            out.append(np.float32(total * s))
    return out


@pytest.mark.parametrize("dtype", sorted(FLOATS))
@given(
    rows=st.integers(1, 7), columns=st.integers(1, 7), rank=st.integers(1, 9),
    seed=st.integers(0, 99), s=st.floats(-4, 4, width=32),
)  # fmt: skip
def test_lora_is_its_definition(dtype: str, rows: int, columns: int, rank: int, seed: int, s: float) -> None:
    a = array(random_f32("a", rank * columns, least=120, spread=9, seed=seed), dtype, rank, columns)
    b = array(random_f32("b", rows * rank, least=120, spread=9, seed=seed), dtype, rows, rank)
    found = decoded("lora", lora.factors(a, b, s), (rows, columns))
    assert found.tobytes() == np.array(product(a, b, np.float32(s)), np.float32).tobytes()


def test_lora_is_not_a_dot_product() -> None:
    """The order of additions shows: 1 + e + e + ... from the left loses what a pairwise sum would keep."""
    rank = 64
    ones = np.ones(rank, np.float32)
    terms = np.full(rank, 2.0**-25, np.float32)
    terms[0] = 1
    parts = lora.factors(array(terms, "F32", rank, 1), array(ones, "F32", 1, rank), 1.0)
    assert decoded("lora", parts, (1, 1))[0] == np.float32(1)
    parts = lora.factors(array(terms[::-1], "F32", rank, 1), array(ones, "F32", 1, rank), 1.0)
    assert decoded("lora", parts, (1, 1))[0] > np.float32(1)


def test_lora_works_in_blocks_that_do_not_show() -> None:
    rows, columns, rank = 90, 700, 5  # several blocks and a rest
    a = array(random_f32("a", rank * columns, least=120, spread=9), "BF16", rank, columns)
    b = array(random_f32("b", rows * rank, least=120, spread=9), "BF16", rows, rank)
    found = decoded("lora", lora.factors(a, b, 0.3), (rows, columns)).reshape(rows, columns)
    left, right = floats(b).reshape(rows, rank), floats(a).reshape(rank, columns)
    total = np.zeros((rows, columns), np.float32)
    for k in range(rank):
        total = total + np.outer(left[:, k], right[k]).astype(np.float32)
    assert found.tobytes() == (total * np.float32(0.3)).tobytes()


def test_lora_of_a_vector_is_one_row() -> None:
    bias = array(delta((5,)), "F32", 1, 5)
    one = array(np.ones(1, np.float32), "F32", 1, 1)
    found = decoded("lora", lora.factors(bias, one, 1.5), (5,))
    assert found.tobytes() == (delta((5,)) * np.float32(1.5)).tobytes()


def test_lora_takes_the_parts_of_float_and_of_exact() -> None:
    shape, tau, base = (4, 3), delta((4, 3)), delta((4, 3), 2)
    assert decoded("lora", {"tau": array(tau, "F32", *shape)}, shape).tobytes() == tau.tobytes()
    replaced = decoded("lora", {"ft": array(tau, "F32", *shape)}, shape, lambda: base)
    assert replaced.tobytes() == (tau - base).tobytes()


@pytest.mark.parametrize("rank", [0, lora.MAX_RANK + 1])
def test_lora_refuses_ranks_that_would_take_memory(rank: int) -> None:
    rows = {
        "a": TensorRow("F32", (rank, 30), ""), "b": TensorRow("F32", (20, rank), ""), "s": TensorRow("F32", (), "")
    }  # fmt: skip
    with pytest.raises(FormatError, match="rank"):
        encodings.check("lora", rows, (20, 30))
    # a matrix that is larger than that may have it
    if rank:
        wide = {**rows, "a": TensorRow("F32", (rank, 2000), ""), "b": TensorRow("F32", (3000, rank), "")}
        encodings.check("lora", wide, (3000, 2000))


# ------------------------------------------------------------------------- lowrank


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (2, 15, 20)], ids=str)
@pytest.mark.parametrize("rank", [1, 4, 9])
def test_lowrank_is_nearly_the_best_there_is(shape: tuple[int, ...], rank: int) -> None:
    tau = delta(shape)
    matrix = tau.reshape(-1, shape[-1]).astype(np.float64)
    sigma = np.linalg.svd(matrix, compute_uv=False)
    best = float(np.sqrt(np.square(sigma[rank:]).sum()))
    assert best <= error("lowrank", {"rank": rank}, tau, shape) <= 1.03 * best


@pytest.mark.parametrize("decay", [0.0, 0.3, 1.0], ids=["flat", "as trained", "steep"])
@pytest.mark.parametrize("shape", [(200, 130), (130, 200)], ids=str)
def test_a_sketch_comes_within_a_hundredth_of_the_best(shape: tuple[int, int], decay: float) -> None:
    rng = np.random.default_rng(3)
    left, right = (np.linalg.qr(rng.standard_normal((side, 130)))[0] for side in shape)
    sigma = np.arange(1.0, 131) ** -decay
    tau = ((left * sigma) @ right.T * 1e-3).astype(np.float32).reshape(-1)
    best = error("lowrank", {"rank": 8, "sketch": False}, tau, shape)
    made = lowrank.encode(tau, shape, rank=8)
    assert made["a"].raw.tobytes() != lowrank.encode(tau, shape, rank=8, sketch=False)["a"].raw.tobytes()
    assert error("lowrank", {"rank": 8}, tau, shape) <= 1.01 * best
    again = lowrank.encode(tau, shape, rank=8)
    assert all(made[part].raw.tobytes() == again[part].raw.tobytes() for part in made)


@pytest.mark.parametrize("size", [1e-30, 1e30, 0.0])
def test_a_matrix_too_small_or_large_for_a_sketch_is_decomposed(size: float) -> None:
    tau = (delta((200, 130)) * np.float32(size)).astype(np.float32)
    parts, exact = (lowrank.encode(tau, (200, 130), rank=2, sketch=sketch) for sketch in (True, False))
    assert {p: a.raw.tobytes() for p, a in parts.items()} == {p: a.raw.tobytes() for p, a in exact.items()}


def test_lowrank_fits_the_second_factor_to_the_first_as_rounded() -> None:
    """A matrix of low rank: all that is left is the rounding, and half of that is made up for."""
    rng = np.random.default_rng(5)
    tau = (rng.standard_normal((80, 3)) @ rng.standard_normal((3, 60))).astype(np.float32).reshape(-1)
    parts = lowrank.encode(tau, (80, 60), rank=3)
    left = parts["b"].raw.view(np.int8).reshape(80, 3).astype(np.float64)
    right = parts["a"].raw.view(np.int8).reshape(3, 60).astype(np.float64)
    scale = floats(parts["scale"])[:, None].astype(np.float64)
    fitted = np.linalg.lstsq(left, tau.reshape(80, 60), rcond=None)[0]
    assert (np.abs(right * scale - fitted) <= 0.501 * scale).all()


@given(
    rows=st.integers(1, 7), columns=st.integers(1, 7), rank=st.integers(1, 9), seed=st.integers(0, 99),
)  # fmt: skip
def test_lowrank_is_its_definition(rows: int, columns: int, rank: int, seed: int) -> None:
    def steps(name: str, *shape: int) -> Array:
        raw = random_f32(name, shape[0] * shape[1], seed=seed).view(np.uint32)
        return Array("I8", shape, (raw & np.uint32(0xFF)).astype(np.uint8))

    a, b = steps("a", rank, columns), steps("b", rows, rank)
    scale = Array("F32", (rank,), random_f32("scale", rank, seed=seed).view("<u4"))
    whole = a.raw.view(np.int8).reshape(rank, columns).astype(np.float32) * floats(scale)[:, None]
    wide = Array("F32", (rank, columns), whole.reshape(-1).view("<u4"))
    left = Array("F32", (rows, rank), b.raw.view(np.int8).astype(np.float32).view("<u4"))
    wanted = np.array(product(wide, left, np.float32(1)), np.float32)
    found = decoded("lowrank", {"a": a, "b": b, "scale": scale}, (rows, columns))
    assert found.tobytes() == wanted.tobytes()


def test_lowrank_keeps_no_more_ranks_than_there_are() -> None:
    tau = np.outer(delta((40,)), delta((30,), 2)).astype(np.float32).reshape(-1)
    assert lowrank.encode(tau, (40, 30), rank=8)["a"].shape == (1, 30)
    assert lowrank.encode(np.zeros(1200, np.float32), (40, 30), rank=8)["a"].shape == (1, 30)


@pytest.mark.parametrize(("shape", "rank"), [((6, 6), 3), ((1, 100), 1), ((2, 3, 4), 9)], ids=str)
def test_lowrank_that_would_not_be_smaller_is_kept_whole(shape: tuple[int, ...], rank: int) -> None:
    tau = delta(shape)
    parts = lowrank.encode(tau, shape, rank=rank)
    assert {p: a.dtype for p, a in parts.items()} == {"q": "I8", "scale": "F32"}
    assert decoded("lowrank", parts, shape).tobytes() == decoded("int8", parts, shape).tobytes()


@pytest.mark.parametrize("shape", [(), (50,)], ids=str)
def test_lowrank_of_what_is_no_matrix(shape: tuple[int, ...]) -> None:
    parts = lowrank.encode(delta(shape), shape, rank=2)
    assert {p: (a.dtype, a.shape) for p, a in parts.items()} == {"tau": ("BF16", shape)}


def test_lowrank_of_nothing() -> None:
    with pytest.raises(UsageError, match="rank of 0"):
        lowrank.encode(delta((4, 4)), (4, 4), rank=0)


# ------------------------------------------------------------------------- sparse


def sparse_by_hand(parts: Parts, shape: tuple[int, ...]) -> F32:
    out = np.zeros(size_of(shape), np.float32)
    values, at = iter(floats(parts["value"])), -1
    for gap in parts["gap"].raw.tolist():
        at += 255 if gap == 255 else gap + 1
        if gap != 255:
            out[at] = next(values)
    assert next(values, None) is None
    return out


@given(
    shape=st.tuples(st.integers(0, 40), st.integers(0, 40)),
    share=st.floats(0.001, 1),
    seed=st.integers(0, 99),
)
def test_sparse_keeps_the_largest(shape: tuple[int, ...], share: float, seed: int) -> None:
    tau = delta(shape, seed)
    parts = sparse.encode(tau, shape, share=share)
    found = decoded("sparse", parts, shape)
    assert found.tobytes() == sparse_by_hand(parts, shape).tobytes()
    if tau.size:
        count = max(1, int(share * tau.size))
        order = sorted(range(tau.size), key=lambda i: (-abs(float(tau[i])), i))[:count]
        wanted = np.zeros(tau.size, np.float32)
        wanted[order] = floats(array(tau[order], "BF16", count))
        assert found.tobytes() == wanted.tobytes()


@pytest.mark.parametrize(
    "places", [[0], [254], [255], [256], [509], [510], [511], [0, 255, 511], [3, 1023]], ids=str
)
def test_sparse_gaps_of_any_length(places: list[int]) -> None:
    tau = np.zeros(1024, np.float32)
    tau[places] = np.arange(1, len(places) + 1)
    parts = sparse.encode(tau, (32, 32), share=0.01)
    assert decoded("sparse", parts, (32, 32)).tobytes() == tau.tobytes()
    assert sparse_by_hand(parts, (32, 32)).tobytes() == tau.tobytes()


def test_sparse_takes_the_first_of_equals_and_no_zeros() -> None:
    tau = np.array([[0, -2, 2, 2], [2, 0, 0, 1e-45]], np.float32).reshape(-1)
    assert decoded("sparse", sparse.encode(tau, (2, 4), share=0.25), (2, 4)).tolist() == [
        0,
        -2,
        2,
        0,
        0,
        0,
        0,
        0,
    ]
    whole = sparse.encode(tau, (2, 4), share=1.0)
    assert whole["value"].shape == (4,)  # the last rounds to 0 in bf16


@pytest.mark.parametrize(
    ("gaps", "values"),
    [([11], 1), ([0] * 12, 12), ([255], 0), ([5, 6], 2), ([1], 0), ([255, 1], 2)],
    ids=str,
)
def test_sparse_parts_that_do_not_fit(gaps: list[int], values: int) -> None:
    parts = {
        "gap": Array("U8", (len(gaps),), np.array(gaps, np.uint8)),
        "value": Array("BF16", (values,), np.full(values, 0x3F80, np.uint16)),
    }
    with pytest.raises(FormatError):
        decoded("sparse", parts, (11, 1))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, float("nan")])
def test_sparse_needs_a_share(share: float) -> None:
    with pytest.raises(UsageError, match="share"):
        sparse.encode(delta((3, 3)), (3, 3), share=share)


# ------------------------------------------------------------------------- ternary


def ternary_by_hand(parts: Parts, shape: tuple[int, ...]) -> F32:
    scale, columns = floats(parts["scale"]), shape[-1]
    out = []
    for i in range(size_of(shape)):
        field = int(parts["t"].raw[i // 4]) >> (2 * (i % 4)) & 3
        out.append(np.float32((0, 1, -1)[field]) * scale[i // columns])
    return np.array(out, np.float32)


@given(shape=st.tuples(st.integers(0, 9), st.integers(1, 9)), seed=st.integers(0, 99))
def test_ternary_is_its_definition(shape: tuple[int, ...], seed: int) -> None:
    parts = ternary.encode(delta(shape, seed), shape)
    assert (decoded("ternary", parts, shape) == ternary_by_hand(parts, shape)).all()


@given(columns=st.integers(1, 12), seed=st.integers(0, 99), spread=st.sampled_from([1, 3, 14]))
def test_ternary_leaves_the_least_error_there_is(columns: int, seed: int, spread: int) -> None:
    tau = delta((1, columns), seed, spread=spread)
    magnitudes = np.sort(np.abs(tau.astype(np.float64)))[::-1]
    total = float(np.square(magnitudes).sum())
    best = min(total - magnitudes[:k].sum() ** 2 / k for k in range(1, columns + 1))
    left = error("ternary", {}, tau, (1, columns)) ** 2
    assert left <= best + 1e-6 * total


def test_ternary_of_several_blocks() -> None:
    shape = (1030, 1024)  # more than one block of rows
    tau = random_f32("delta", size_of(shape), least=118, spread=3)
    parts = ternary.encode(tau, shape)
    one = ternary.encode(tau[-3 * 1024 :], (3, 1024))
    assert parts["scale"].raw[-3:].tobytes() == one["scale"].raw.tobytes()
    assert parts["t"].raw[-3 * 256 :].tobytes() == one["t"].raw.tobytes()


@pytest.mark.parametrize("field", [0b11, 0b11 << 4])
def test_ternary_fields_that_mean_nothing(field: int) -> None:
    parts = {
        "t": Array("U8", (1,), np.array([field], np.uint8)),
        "scale": Array("F32", (1,), np.ones(1, np.float32).view(np.uint32)),
    }
    with pytest.raises(FormatError, match="mean nothing"):
        decoded("ternary", parts, (1, 4))


def test_ternary_fields_after_the_end() -> None:
    parts = {
        "t": Array("U8", (1,), np.array([1 << 6], np.uint8)),
        "scale": Array("F32", (1,), np.ones(1, np.float32).view(np.uint32)),
    }
    assert decoded("ternary", parts, (1, 4)).tolist() == [0, 0, 0, 1]
    with pytest.raises(FormatError, match="mean nothing"):
        decoded("ternary", parts, (1, 3))
