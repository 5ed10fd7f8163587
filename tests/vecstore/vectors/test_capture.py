"""Capturing checkpoints: what comes back, and what is refused with nothing left behind."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from support.vectors import (
    Tensors,
    array,
    base_at,
    captured,
    nothing_stored,
    nudged,
    random_f32,
    save,
    small_base,
    store,
    values,
)

from pv.registry.errors import BaseMismatch, CheckpointRefused, FormatError, PvError, UsageError
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint
from pv.vecstore.tensors.array import Array, storage_dtype
from pv.vecstore.tensors.philox import bits32
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.capture import capture
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.vector import Vector, open_vector, reference_to

TENSORS = small_base()
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"


def _bits(vector: Vector, name: str) -> Array:
    """The fine-tuned tensor, as its pack has it."""
    row = vector.manifest.tensors[name]["ft"]
    reference = reference_to(
        vector.base.manifest.tensors[name], vector.manifest.tensors[name], partial(vector.base.raw, name)
    )
    return Array(row.dtype, row.shape, vector.pack.read(name, "ft", reference))


def _comes_back(vector_id: str, base: Base, packs: PackStore, wanted: Tensors, own: Tensors) -> None:
    """Every tensor of the checkpoint, bit for bit: from the vector, or unchanged in the base."""
    with open_vector(vector_id, base, packs) as vector:
        for name, tensor in wanted.items():
            if name in vector.manifest.tensors:
                found = _bits(vector, name)
                assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
                assert found.raw.tobytes() == tensor.raw.tobytes(), name
            else:
                assert own[name].raw.tobytes() == tensor.raw.tobytes(), name


def _refused(tensors: Tensors, base: Base, packs: PackStore, folder: Path) -> PvError:
    with pytest.raises(PvError) as caught:
        captured(folder, tensors, base, packs)
    assert nothing_stored(packs)
    return caught.value


# Exact


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])
def test_a_captured_checkpoint_comes_back_bit_for_bit(tmp_path: Path, packs: PackStore, dtype: str) -> None:
    """Zeros of both signs, subnormals, infinities, NaNs with payloads; against a base that has them too."""
    storage = storage_dtype(dtype)
    if storage.itemsize == 4:
        special = [0, 1, 1 << 31, (1 << 31) + 1, 0x7F800000, 0xFF800000, 0x7F800001, 0x7FC00000, 0xFFFFFFFF]
        patterns = np.concatenate([np.array(special, "<u4"), bits32(1, "patterns", 0, 60_000)])
    else:
        patterns = np.arange(1 << (8 * storage.itemsize), dtype=np.uint32).astype(storage)
    order = np.argsort(bits32(1, "order", 0, len(patterns)), kind="stable")
    own = {
        "mixed": Array(dtype, patterns.shape, patterns),
        "near": Array(dtype, patterns.shape, patterns),
        "zeros": Array(dtype, (4,), np.zeros(4, storage)),
    }
    tuned = {
        "mixed": Array(dtype, patterns.shape, patterns[order]),
        "near": Array(dtype, patterns.shape, patterns + (bits32(1, "step", 0, len(patterns)) % 7 == 0)),
        "zeros": Array(
            dtype, (4,), np.array([0, 1 << (8 * storage.itemsize - 1)] * 2, np.uint64).astype(storage)
        ),
    }
    tuned["near"] = replace(tuned["near"], raw=tuned["near"].raw.astype(storage))
    with base_at(save(tmp_path / "base", own)) as base:
        vector = captured(tmp_path / "ft", tuned, base, packs)
        assert set(vector.tensors) == {"mixed", "near", "zeros"}  # -0 is not 0
        _comes_back(vector.id, base, packs, tuned, own)


def test_frozen_tensors_are_not_stored(tmp_path: Path, base: Base, packs: PackStore) -> None:
    tuned = nudged(TENSORS, 4, only=[UP, NORM])
    vector = captured(tmp_path / "ft", tuned, base, packs)
    assert set(vector.tensors) == {UP, NORM}
    assert vector.encoding == "exact"
    assert vector.base == base.manifest.id
    _comes_back(vector.id, base, packs, tuned, TENSORS)


def test_a_real_fine_tune(tmp_path: Path, packs: PackStore, tiny_tied: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    state = load_file(tiny_tied / "model.safetensors")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        tuned = {n: t + torch.randn_like(t) * 1e-3 for n, t in state.items() if "embed" not in n}
    tuned = {**state, **tuned}
    (tmp_path / "ft").mkdir()
    save_file(tuned, tmp_path / "ft" / "model.safetensors", {"format": "pt"})
    with base_at(tiny_tied) as base, Checkpoint(tmp_path / "ft") as checkpoint:
        vector_id = capture(checkpoint, base, packs).id
        with open_vector(vector_id, base, packs) as vector:
            assert set(vector.manifest.tensors) == {n for n in state if not torch.equal(state[n], tuned[n])}
            for name in vector.manifest.tensors:
                raw = _bits(vector, name).raw.view(np.int16).copy()
                assert torch.equal(torch.from_numpy(raw), tuned[name].flatten().view(torch.int16))
                difference = tuned[name].float() - state[name].float()
                assert torch.equal(torch.from_numpy(vector.tau(name)), difference.flatten())


def test_the_id_is_of_the_content(tmp_path: Path, base: Base, packs: PackStore) -> None:
    """Sharding, threads and asking twice change nothing, not even the pack's bytes."""
    tuned = nudged(TENSORS, 4)
    first = captured(tmp_path / "one", tuned, base, packs)
    data = packs.path(first.id).read_bytes()
    other = store(tmp_path / "other")
    with Checkpoint(save(tmp_path / "many", tuned, shards=4)) as checkpoint:
        assert capture(checkpoint, base, other, threads=1).id == first.id
        assert other.path(first.id).read_bytes() == data
        assert capture(checkpoint, base, packs).id == first.id
    assert list(packs.ids()) == [first.id]
    assert list(packs.tmp.iterdir()) == []
    assert captured(tmp_path / "else", nudged(TENSORS, 5), base, packs).id != first.id


def test_the_smallest_pack_is_the_same_vector(tmp_path: Path, packs: PackStore) -> None:
    own = {"w": array("w", "BF16", 200, 300), "v": array("v", "F32", 7)}
    tuned = nudged(own, 6)
    with base_at(save(tmp_path / "base", own)) as base:
        plain = captured(tmp_path / "ft", tuned, base, packs).id
        other = store(tmp_path / "other")
        with Checkpoint(tmp_path / "ft") as checkpoint:
            assert capture(checkpoint, base, other, smallest=True).id == plain
        assert other.size(plain) < packs.size(plain)
        _comes_back(plain, base, other, tuned, own)


def test_a_fine_tune_saved_in_fp32(tmp_path: Path, base: Base, packs: PackStore) -> None:
    """Finer than the base's own dtype, and kept so."""
    tuned = dict(TENSORS)
    for name in (UP, NORM, "model.layers.0.self_attn.q_proj.weight"):
        wide = values(TENSORS[name]) + random_f32(f"finer {name}", TENSORS[name].raw.size, least=95)
        tuned[name] = Array("F32", TENSORS[name].shape, wide.view("<u4"))
    vector = captured(tmp_path / "ft", tuned, base, packs)
    assert vector.tensors[UP]["ft"].dtype == "F32"
    _comes_back(vector.id, base, packs, tuned, TENSORS)
    with open_vector(vector.id, base, packs) as opened:
        assert np.array_equal(opened.tau(UP), values(tuned[UP]) - values(TENSORS[UP]))


@pytest.mark.parametrize("against", ["file", "pin", "changed file", "other file"])
def test_a_pinned_base_decodes_the_same(tmp_path: Path, packs: PackStore, against: str) -> None:
    from pv.vecstore.vectors.base import open_base

    tuned = nudged(TENSORS, 4)
    folder = save(tmp_path / "base", TENSORS)
    with base_at(folder) as base:
        pin(base.weights, base.manifest, packs)
        manifest = base.manifest
    if against == "pin":
        (folder / "model.safetensors").unlink()
    elif against == "changed file":  # by a training in place, say
        save(folder, nudged(TENSORS, 9, only=[UP]))
    elif against == "other file":
        save(folder, {UP: TENSORS[UP]})
    with open_base(manifest, packs) as base:
        vector = captured(tmp_path / "ft", tuned, base, packs)
        _comes_back(vector.id, base, packs, tuned, TENSORS)
        assert (base.checkpoint is None) == (against in ("pin", "other file"))
        assert all(
            base.tensor(name).raw.tobytes() == tensor.raw.tobytes() for name, tensor in TENSORS.items()
        )


def test_progress_ends_where_it_said(tmp_path: Path, base: Base, packs: PackStore) -> None:
    seen: list[tuple[int, int]] = []
    with Checkpoint(save(tmp_path / "ft", nudged(TENSORS, 4, only=[UP]))) as checkpoint:
        capture(checkpoint, base, packs, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {2 * sum(t.raw.nbytes for t in TENSORS.values())}
    assert seen[-1][0] == seen[-1][1]


# Refused


def test_everything_that_does_not_fit_is_named(tmp_path: Path, base: Base, packs: PackStore) -> None:
    tuned = nudged(TENSORS, 4)
    del tuned[NORM]
    tuned["model.extra.weight"] = array("extra", "BF16", 3)
    tuned[UP] = array("transposed", "BF16", 12, 24)
    tuned["model.layers.1.mlp.up_proj.weight"] = array("integers", "I16", 24, 12)
    tuned["model.embed_tokens.weight"] = array("double", "F64", 40, 12)
    error = _refused(tuned, base, packs, tmp_path / "ft")
    assert isinstance(error, CheckpointRefused)
    for difference in (
        f"'{NORM}' is missing",
        "'model.extra.weight' is not in the base",
        f"'{UP}' has shape [12, 24], the base has [24, 12]",
        "'model.layers.1.mlp.up_proj.weight' is I16, the base has BF16",
        "'model.embed_tokens.weight' is F64, the base has BF16",
    ):
        assert difference in str(error)
    assert error.hint


def test_a_hundred_differences_are_counted(tmp_path: Path, base: Base, packs: PackStore) -> None:
    tuned = {**TENSORS, **{f"extra.{i}": array("extra", "BF16", 1) for i in range(100)}}
    assert "(and 95 more)" in str(_refused(tuned, base, packs, tmp_path / "ft"))


@pytest.mark.parametrize("dtype", ["I64", "F64", "BOOL"])
def test_a_changed_tensor_that_no_vector_can_move(tmp_path: Path, packs: PackStore, dtype: str) -> None:
    own = {**TENSORS, "odd": array("odd", dtype, 6)}
    tuned = {**nudged(own, 4, only=[UP]), "odd": array("odd", dtype, 6, seed=2)}
    with base_at(save(tmp_path / "base", own)) as base:
        error = _refused(tuned, base, packs, tmp_path / "ft")
        assert isinstance(error, CheckpointRefused)
        assert f"'odd' ({dtype})" in str(error)
        tuned["odd"] = own["odd"]  # unchanged it does not matter
        assert set(captured(tmp_path / "ft", tuned, base, packs).tensors) == {UP}


def test_the_base_itself(tmp_path: Path, base: Base, packs: PackStore) -> None:
    error = _refused(TENSORS, base, packs, tmp_path / "ft")
    assert isinstance(error, UsageError)
    assert "is the base itself" in str(error)


def test_a_base_that_changed_on_disk(tmp_path: Path, packs: PackStore) -> None:
    folder = save(tmp_path / "base", TENSORS)
    with base_at(folder) as base:
        save(folder, nudged(TENSORS, 9, only=[UP]))
        error = _refused(nudged(TENSORS, 4), base, packs, tmp_path / "ft")
    assert isinstance(error, BaseMismatch)
    assert f"'{UP}'" in str(error)
    assert str(folder) in (error.hint or "")


def test_a_base_that_was_replaced(tmp_path: Path, packs: PackStore) -> None:
    """Other names and shapes: said at once, when it is opened."""
    from pv.vecstore.vectors.base import open_base

    folder = save(tmp_path / "base", TENSORS)
    with base_at(folder) as base:
        manifest = base.manifest
    save(folder, {**TENSORS, NORM: array("norm", "BF16", 13)})
    with pytest.raises(BaseMismatch, match=r"'model.norm.weight' has shape \[13\], the base has \[12\]"):
        open_base(manifest, packs)


@pytest.mark.parametrize("after", [0, 1, 5, 14])
def test_an_interrupted_capture_leaves_nothing(
    tmp_path: Path, base: Base, packs: PackStore, after: int
) -> None:
    calls = 0

    def progress(done: int, total: int) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise KeyboardInterrupt

    with (
        Checkpoint(save(tmp_path / "ft", nudged(TENSORS, 4))) as checkpoint,
        pytest.raises(KeyboardInterrupt),
    ):
        capture(checkpoint, base, packs, progress=progress)
    assert nothing_stored(packs)
    assert calls == after + 1


def test_a_checkpoint_that_shrinks_meanwhile(tmp_path: Path, base: Base, packs: PackStore) -> None:
    folder = save(tmp_path / "ft", nudged(TENSORS, 4))

    def shrink(done: int, total: int) -> None:
        if done > total // 2:
            with (folder / "model.safetensors").open("r+b") as file:
                file.truncate(2000)

    with Checkpoint(folder) as checkpoint, pytest.raises(FormatError, match="became shorter"):
        capture(checkpoint, base, packs, progress=shrink)
    assert nothing_stored(packs)
