"""Two checkpoints in one pass: however a tensor is cut into blocks and pieces, the sums are those of the whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.vectors import Tensors, array, nudged, save, small_base, values

from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.checkpoints.together import together
from pv.vecstore.merge.checkpoints import BLOCK, BLOCKS, Measured, compare_weights
from pv.vecstore.merge.heads import HeadCount
from pv.vecstore.merge.movement import measure
from pv.vecstore.tensors.array import Array

Q, O_, UP = (
    f"model.layers.0.{name}.weight" for name in ("self_attn.q_proj", "self_attn.o_proj", "mlp.up_proj")
)


def compared(
    folder: Path,
    a: Tensors,
    b: Tensors,
    *,
    heads: HeadCount | None = None,
    spectra: bool = False,
    threads: int = 1,
) -> dict[str, Measured]:
    for name, one in (("a", a), ("b", b)):
        if not (folder / name).exists():
            save(folder / name, one)
    with Checkpoint(folder / "a") as first, Checkpoint(folder / "b") as second:
        said: list[tuple[int, int]] = []
        found = compare_weights(
            first, together(first, second), heads=heads, spectra=spectra, threads=threads,
            progress=lambda done, total: said.append((done, total)),
        )  # fmt: skip
    assert said[-1][0] == said[-1][1] and sorted(said) == said
    return {one.name: one for one in found}


def test_every_tensor_is_what_one_measure_says(tmp_path: Path) -> None:
    a = small_base()
    b = nudged(a, 5)
    for name, one in compared(tmp_path, a, b).items():
        if one.sums is None:
            assert one.same and a[name].dtype == "I64"
            continue
        assert one.sums == measure(a[name].raw, a[name].dtype, b[name].raw, b[name].dtype)
        assert one.same == (one.sums.changed == 0)


def test_integers_are_only_the_same_or_not(tmp_path: Path) -> None:
    a = {
        "codes": array("codes", "I32", 7, 9),
        "others": array("others", "I32", 5),
        UP: array("u", "BF16", 4, 4),
    }
    b = {**a, "codes": Array("I32", (7, 9), a["codes"].raw + np.uint32(1))}
    found = compared(tmp_path, a, b)
    assert [(name, one.same, one.sums is None) for name, one in found.items()] == [
        ("codes", False, True), (UP, True, False), ("others", True, True),
    ]  # fmt: skip


@pytest.mark.parametrize("name", [Q, O_])
def test_heads_over_the_ends_of_blocks(tmp_path: Path, name: str) -> None:
    rows, columns = (
        2064,
        1032,
    )  # a head of rows, and the rows of a block of columns, end nowhere near a block's end
    assert rows * columns > 2 * BLOCK
    a = {name: array("a", "BF16", rows, columns)}
    b = {name: array("a", "BF16", rows, columns, seed=2)}
    (found,) = compared(tmp_path, a, b, heads=HeadCount(3, 1)).values()
    step = (values(b[name]) - values(a[name])).astype(np.float64).reshape(rows, columns)
    parts = np.split(step, 3, axis=0 if name == Q else 1)
    assert [one.head for one in found.heads] == [0, 1, 2]
    for one, part in zip(found.heads, parts, strict=True):
        assert (one.moved.elements, one.moved.changed) == (part.size, int(np.count_nonzero(part)))
        assert one.moved.norm == pytest.approx(float(np.linalg.norm(part)))
    whole = measure(a[name].raw, "BF16", b[name].raw, "BF16")
    assert found.sums is not None
    assert (found.sums.changed, found.sums.largest) == (whole.changed, whole.largest)
    assert found.sums.step2 == pytest.approx(whole.step2) and found.sums.ab == pytest.approx(whole.ab)


def test_a_tensor_of_many_pieces(tmp_path: Path) -> None:
    size = BLOCK * (2 * BLOCKS + 1) + 5
    zero = np.zeros(size, np.uint8)
    moved = zero.copy()
    moved[[0, BLOCK - 1, BLOCK, BLOCK * BLOCKS, size - 1]] = 0x38  # 1 in E4M3
    a, b = ({UP: Array("F8_E4M3", (size,), raw)} for raw in (zero, moved))
    one, three = (compared(tmp_path, a, b, threads=threads)[UP] for threads in (1, 3))
    assert one == three and one.elements == size
    assert one.sums is not None
    assert (one.sums.elements, one.sums.changed, one.sums.step2, one.sums.largest) == (size, 5, 5.0, 1.0)


def test_spectra_change_no_sum(tmp_path: Path) -> None:
    a = {UP: array("a", "F16", 30, 20), "model.norm.weight": array("n", "F16", 30)}
    b = {UP: array("a", "F16", 30, 20, seed=2), "model.norm.weight": array("n", "F16", 30, seed=2)}
    plain, with_spectra = (compared(tmp_path, a, b, spectra=spectra) for spectra in (False, True))
    assert [one.spectrum is None for one in with_spectra.values()] == [False, True]
    assert [one.sums for one in plain.values()] == [one.sums for one in with_spectra.values()]
    spread = with_spectra[UP].spectrum
    assert spread is not None and spread.norm2 == pytest.approx(with_spectra[UP].sums.step2)  # type: ignore[union-attr]


def test_what_is_not_finite_is_compared_by_its_bytes(tmp_path: Path) -> None:
    odd = array("a", "F32", 9)
    odd.raw[3] = 0x7FC00001
    other = Array("F32", (9,), odd.raw.copy())
    other.raw[3] = 0x7FC00002
    a = {"x": odd, "y": odd}
    for name, one in compared(tmp_path, a, {"x": odd, "y": other}).items():
        assert one.sums is not None and not one.sums.finite
        assert one.same == (name == "x")
