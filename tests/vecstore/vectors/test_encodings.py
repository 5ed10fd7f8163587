"""What holds of every encoding: it can be read back, only as what it is; and the sums that must never change."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import Parts, decoded, delta, size_of

from pv.registry.errors import FormatError
from pv.vecstore.tensors.array import Array
from pv.vecstore.tensors.philox import bits32
from pv.vecstore.vectors.encodings import by_name, lora

ENCODED: dict[str, tuple[str, dict[str, Any]]] = {
    "float": ("float", {}),
    "float fp32": ("float", {"dtype": "F32"}),
    "int8": ("int8", {}),
    "lowrank": ("lowrank", {"rank": 3}),
    "sparse": ("sparse", {"share": 0.2}),
    "sparse, all": ("sparse", {"share": 1.0}),
    "ternary": ("ternary", {}),
}
shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)


@pytest.mark.parametrize(("encoding", "options"), ENCODED.values(), ids=ENCODED.keys())
@given(shape=shapes, seed=st.integers(0, 50), zero=st.booleans())
def test_what_is_made_can_be_read(
    encoding: str, options: dict[str, Any], shape: tuple[int, ...], seed: int, zero: bool
) -> None:
    tau = np.zeros(size_of(shape), np.float32) if zero else delta(shape, seed)
    parts = by_name(encoding).encode(tau, shape, **options)
    found = decoded(encoding, parts, shape)
    assert found.dtype == np.float32
    assert found.shape == tau.shape
    assert np.isfinite(found).all()
    # an approximation does not grow, but for its roundings
    assert np.linalg.norm(found) <= 1.1 * np.linalg.norm(tau) + 1e-30
    if zero:
        assert not found.any()
    again = by_name(encoding).encode(tau, shape, **options)
    assert {p: (a.dtype, a.shape, a.raw.tobytes()) for p, a in parts.items()} == {
        p: (a.dtype, a.shape, a.raw.tobytes()) for p, a in again.items()
    }


@pytest.mark.parametrize(("encoding", "options"), ENCODED.values(), ids=ENCODED.keys())
@pytest.mark.parametrize(
    ("shape", "other"),
    [
        ((), (2,)),
        ((7,), (8,)),
        ((20, 10), (10, 20)),
        ((20, 10), (20, 14)),
        ((20, 10), (5, 10)),
        ((2, 20, 5), (2, 5, 20)),
    ],
    ids=str,
)
def test_the_parts_of_another_shape(
    encoding: str, options: dict[str, Any], shape: tuple[int, ...], other: tuple[int, ...]
) -> None:
    parts = by_name(encoding).encode(delta(shape), shape, **options)
    if encoding == "sparse" and len(shape) > 1 and size_of(other) >= size_of(shape):
        return  # positions say nothing of the end: these are the parts of a larger tensor, too
    with pytest.raises(FormatError):
        decoded(encoding, parts, other)


@pytest.mark.parametrize(("encoding", "options"), ENCODED.values(), ids=ENCODED.keys())
def test_a_part_of_another_kind_is_refused(encoding: str, options: dict[str, Any]) -> None:
    shape = (6, 8)
    parts = by_name(encoding).encode(delta(shape), shape, **options)
    for part, made in parts.items():
        wrong: list[Parts] = [
            {p: a for p, a in parts.items() if p != part},
            {**parts, "more": made},
            {**parts, part: Array("I64", made.shape, made.raw.astype(np.uint64))},
            {**parts, part: Array(made.dtype, (*made.shape, 1), made.raw)},
            {
                **parts,
                part: Array(made.dtype, (made.raw.size + 50,), np.resize(made.raw, made.raw.size + 50)),
            },
        ]
        for bad in wrong:
            with pytest.raises(FormatError):
                decoded(encoding, bad, shape)


# ------------------------------------------------------------------------- golden sums

GOLDEN = {
    "float": "05c054dc1a3e5cafb81fd1da1ba51c46bb3026a19d02cd2500059e1f42b458fc",
    "int8": "02a71db5e4a039be0263a65152cb21079df0e92ff82747e2c98864df01386c52",
    "lora": "c867d3b5a2bc205d1bd3df49613de2a66be4fe39a1426f0bdff26a1a86d2de2d",
    "lowrank": "b9552ea3371ebc8909ee299d5252e540cc5f27878f847e7ada8fb54325ab1831",
    "sparse": "4bdc158b0851d5691fe6ef7d824d7fbb1e4e600ffcdfa26eefc506a5ee8a4fd6",
    "ternary": "afaa76310afa322ee7de399f08c0105aeedafe00ab424e235524fa56f86adf7d",
}


def golden_parts() -> dict[str, tuple[Parts, tuple[int, ...]]]:
    """Parts of each encoding, from random integers: no arithmetic, so the same on every machine."""

    def bits(name: str, n: int) -> np.ndarray[Any, np.dtype[np.uint32]]:
        return bits32(9, name, 0, n)

    rows, columns, rank = 37, 1001, 6
    n = rows * columns
    a = (bits("a", rank * columns) & 0xBFFF0000 | 0x30000000) >> 16
    b = (bits("b", rows * rank) & 0xBFFF0000 | 0x30000000) >> 16
    factors = lora.factors(
        Array("BF16", (rank, columns), a.astype(np.uint16)),
        Array("BF16", (rows, rank), b.astype(np.uint16)),
        0.7,
    )
    scale = Array("F32", (rows,), bits("scale", rows) & 0x00FFFFFF | 0x36000000)
    fields = bits("t", n) % 3
    quads = np.zeros(-(-n // 4) * 4, np.uint8)
    quads[:n] = fields
    packed = (quads.reshape(-1, 4) << np.array([0, 2, 4, 6], np.uint8)).sum(axis=1, dtype=np.uint8)
    gaps = (bits("gap", 200) & 0xFF).astype(np.uint8)
    gaps[7::9] = 255
    values = (bits("value", int((gaps != 255).sum())) >> 16).astype(np.uint16) & 0xBFFF
    whole = Array("BF16", (rows, columns), (bits("tau", n) >> 16).astype(np.uint16) & 0xBFFF)
    return {
        "float": ({"tau": whole}, (rows, columns)),
        "int8": (
            {"q": Array("I8", (rows, columns), (bits("q", n) & 0xFF).astype(np.uint8)), "scale": scale},
            (rows, columns),
        ),
        "lora": (factors, (rows, columns)),
        "lowrank": (
            {
                "a": Array("I8", (rank, columns), (bits("a8", rank * columns) & 0xFF).astype(np.uint8)),
                "b": Array("I8", (rows, rank), (bits("b8", rows * rank) & 0xFF).astype(np.uint8)),
                "scale": Array("F32", (rank,), bits("scale", rank) & 0x00FFFFFF | 0x36000000),
            },
            (rows, columns),
        ),
        "sparse": (
            {"gap": Array("U8", gaps.shape, gaps), "value": Array("BF16", values.shape, values)},
            (rows, columns),
        ),
        "ternary": ({"t": Array("U8", packed.shape, packed), "scale": scale}, (rows, columns)),
    }


@pytest.mark.parametrize("encoding", ["float", "int8", "lora", "lowrank", "sparse", "ternary"])
def test_golden_sums(encoding: str) -> None:
    """A sum that changes means vectors kept before would build otherwise: never edit this table."""
    parts, shape = golden_parts()[encoding]
    found = decoded(encoding, parts, shape)
    assert np.count_nonzero(found) > 100
    assert hashlib.sha256(found.tobytes()).hexdigest() == GOLDEN[encoding]
