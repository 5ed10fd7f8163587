"""Capturing checkpoints and keeping deltas: what comes back, and what is refused with nothing left behind."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from vector_kit import (
    Tensors,
    array,
    base_at,
    captured,
    files_below,
    kept,
    nudged,
    put,
    random_f32,
    save,
    small_base,
    store,
    values,
)

from pv.registry.errors import (
    BaseMismatch,
    CheckpointRefused,
    CorruptPack,
    FormatError,
    IntegrityError,
    NotFoundError,
    PvError,
    UsageError,
)
from pv.registry.packs import PackStore
from pv.vecstore.base import Base, pin
from pv.vecstore.checkpoint import Checkpoint
from pv.vecstore.codecs.chunks import CHUNK
from pv.vecstore.codecs.layout import LAYOUTS
from pv.vecstore.encodings import int8
from pv.vecstore.encodings.array import Array
from pv.vecstore.engine.philox import bits32
from pv.vecstore.pack import Pack, Part
from pv.vecstore.vector import Vector, capture, keep, open_vector, reference_to

TENSORS = small_base()
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"
POSITIONS = "model.position_ids"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    with base_at(save(tmp_path_factory.mktemp("base"), TENSORS)) as opened:
        yield opened


@pytest.fixture
def packs(tmp_path: Path) -> PackStore:
    return store(tmp_path / "store")


def _bits(vector: Vector, name: str) -> Array:
    """The fine-tuned tensor, as its pack has it."""
    row = vector.manifest.tensors[name]["ft"]
    reference = reference_to(vector.base, name, vector.manifest.tensors[name])
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


def _nothing_stored(packs: PackStore) -> bool:
    return list(packs.ids()) == [] and list(packs.tmp.iterdir()) == []


def _refused(tensors: Tensors, base: Base, packs: PackStore, folder: Path) -> PvError:
    with pytest.raises(PvError) as caught:
        captured(folder, tensors, base, packs)
    assert _nothing_stored(packs)
    return caught.value


# Exact


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32", "F8_E4M3", "F8_E5M2"])
def test_a_captured_checkpoint_comes_back_bit_for_bit(tmp_path: Path, packs: PackStore, dtype: str) -> None:
    """Zeros of both signs, subnormals, infinities, NaNs with payloads; against a base that has them too."""
    storage = LAYOUTS[dtype].storage
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
    from pv.vecstore.base import open_base

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
        assert all(base.verified(name).tobytes() == tensor.raw.tobytes() for name, tensor in TENSORS.items())


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
    from pv.vecstore.base import open_base

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
    assert _nothing_stored(packs)
    assert calls == after + 1


def test_a_checkpoint_that_shrinks_meanwhile(tmp_path: Path, base: Base, packs: PackStore) -> None:
    folder = save(tmp_path / "ft", nudged(TENSORS, 4))

    def shrink(done: int, total: int) -> None:
        if done > total // 2:
            with (folder / "model.safetensors").open("r+b") as file:
                file.truncate(2000)

    with Checkpoint(folder) as checkpoint, pytest.raises(FormatError, match="became shorter"):
        capture(checkpoint, base, packs, progress=shrink)
    assert _nothing_stored(packs)


# Opening


def test_a_vector_of_another_base(tmp_path: Path, base: Base, packs: PackStore) -> None:
    vector = captured(tmp_path / "ft", nudged(TENSORS, 4), base, packs)
    with (
        base_at(save(tmp_path / "other", small_base(seed=2))) as other,
        pytest.raises(BaseMismatch, match=f"from base {base.manifest.id[:12]}.*{other.manifest.id[:12]}"),
    ):
        open_vector(vector.id, other, packs)


def test_a_vector_that_is_not_there(base: Base, packs: PackStore) -> None:
    with pytest.raises(NotFoundError, match="000000000000") as caught:
        open_vector("0" * 64, base, packs)
    assert "pv fsck" in (caught.value.hint or "")


def test_a_base_in_the_place_of_a_vector(base: Base, packs: PackStore) -> None:
    pin(base.weights, base.manifest, packs)
    with pytest.raises(CorruptPack, match="is not a vector"):
        open_vector(base.manifest.id, base, packs)


def _zeros(name: str, part: str, dtype: str, *shape: int) -> Part:
    storage = LAYOUTS[dtype].storage
    return Part(name, part, dtype, shape, lambda start, stop: np.zeros(stop - start, storage))


def test_a_vector_with_tensors_that_the_base_lacks(base: Base, packs: PackStore) -> None:
    vector = put(packs, base.manifest.id, "float", [_zeros("nope", "tau", "F32", 3)])
    with pytest.raises(BaseMismatch, match="'nope'"):
        open_vector(vector, base, packs)


MISFITS = {
    "another name": ("float", [_zeros(NORM, "ft", "F32", 12)]),
    "a part too many": ("float", [_zeros(NORM, "tau", "F32", 12), _zeros(NORM, "x", "F32", 12)]),
    "a part missing": ("int8", [_zeros(NORM, "q", "I8", 12)]),
    "another encoding's parts": ("ternary", [_zeros(NORM, "q", "I8", 12)]),
    "too few elements": ("float", [_zeros(NORM, "tau", "F32", 11)]),
    "too many elements": ("float", [_zeros(NORM, "tau", "F32", 13)]),
    "integers": ("int8", [_zeros(NORM, "q", "I16", 12), _zeros(NORM, "scale", "F32", 1)]),
    "a scale too many": ("int8", [_zeros(NORM, "q", "I8", 12), _zeros(NORM, "scale", "F32", 2)]),
    "fine-tuned integers": ("exact", [_zeros(NORM, "ft", "I16", 12)]),
}


@pytest.mark.parametrize(("encoding", "parts"), MISFITS.values(), ids=MISFITS.keys())
def test_a_vector_that_does_not_fit(base: Base, packs: PackStore, encoding: str, parts: list[Part]) -> None:
    with (
        open_vector(put(packs, base.manifest.id, encoding, parts), base, packs) as vector,
        pytest.raises(PvError) as caught,
    ):
        vector.tau(NORM)
    assert caught.value.exit_code in (2, 3)  # refused, not a defect


def test_a_vector_larger_than_its_base_takes_no_memory(base: Base, packs: PackStore) -> None:
    bomb = put(packs, base.manifest.id, "float", [_zeros(NORM, "tau", "F8_E4M3", 32 * CHUNK)])
    assert packs.size(bomb) < 10_000
    with open_vector(bomb, base, packs) as vector:
        tracemalloc.start()
        try:
            with pytest.raises(IntegrityError, match="the base's size"):
                vector.tau(NORM)
            assert tracemalloc.get_traced_memory()[1] < CHUNK
        finally:
            tracemalloc.stop()


def test_a_changed_base_is_not_called_a_damaged_vector(tmp_path: Path, packs: PackStore) -> None:
    folder = save(tmp_path / "base", TENSORS)
    with base_at(folder) as base:
        vector_id = captured(tmp_path / "ft", nudged(TENSORS, 4), base, packs).id
        save(folder, nudged(TENSORS, 9, only=["model.embed_tokens.weight"]))
        with (
            open_vector(vector_id, base, packs) as vector,
            pytest.raises(BaseMismatch, match=r"'model\.embed_tokens\.weight'"),
        ):
            vector.tau("model.embed_tokens.weight")


def test_a_damaged_vector_is_called_that(tmp_path: Path, base: Base, packs: PackStore) -> None:
    vector_id = captured(tmp_path / "ft", nudged(TENSORS, 4), base, packs).id
    path = packs.path(vector_id)
    with Pack(path) as pack:
        data_start = pack._file.data_start
    data = bytearray(path.read_bytes())
    data[data_start + 40] ^= 1  # inside the first tensor's payload
    path.chmod(0o644)
    path.write_bytes(data)
    with open_vector(vector_id, base, packs) as vector, pytest.raises(CorruptPack, match="embed_tokens"):
        vector.tau("model.embed_tokens.weight")


# Deltas


DELTAS = {
    name: random_f32(f"delta {name}", tensor.raw.size, least=100, spread=20)
    for name, tensor in TENSORS.items()
    if name != POSITIONS
}


def test_float_keeps_fp32_without_loss(base: Base, packs: PackStore) -> None:
    with open_vector(kept(base, packs, DELTAS), base, packs) as vector:
        assert set(vector.manifest.tensors) == set(DELTAS)
        for name, delta in DELTAS.items():
            assert vector.tau(name).tobytes() == delta.tobytes()


def test_float_rounds_to_nearest_bf16(base: Base, packs: PackStore) -> None:
    import torch

    with open_vector(kept(base, packs, DELTAS, dtype="BF16"), base, packs) as vector:
        for name, delta in DELTAS.items():
            wanted = torch.from_numpy(delta.copy()).bfloat16().float()
            assert vector.tau(name).tobytes() == wanted.numpy().tobytes()


def test_int8_is_steps_of_a_scale_for_each_row(base: Base, packs: PackStore) -> None:
    """And the stored scale is such that a few per cent of the delta are lost, no more."""
    with open_vector(kept(base, packs, DELTAS, "int8"), base, packs) as vector:
        for name, delta in DELTAS.items():
            q = vector.pack.read(name, "q").view(np.int8)
            scale = vector.pack.read(name, "scale").view(np.float32)
            each = np.repeat(scale, len(delta) // max(1, len(scale)))
            assert vector.tau(name).tobytes() == (q.astype(np.float32) * each).tobytes()
            assert (np.abs(vector.tau(name) - delta) <= 0.5001 * each).all()
            assert np.linalg.norm(vector.tau(name) - delta) <= 0.05 * np.linalg.norm(delta)


@given(
    shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    scale=st.sampled_from([0.0, 1e-44, 1e-40, 1e-6, 1.0, 1e38]),
    seed=st.integers(0, 100),
)
def test_int8_of_any_shape_and_size(shape: tuple[int, ...], scale: float, seed: int) -> None:
    n = int(np.prod(shape, dtype=np.int64))
    delta = (random_f32("int8", n, least=120, spread=7, seed=seed) * np.float32(scale)).astype(np.float32)
    parts = int8.encode(delta, shape)
    q, scales = parts["q"].raw.view(np.int8), parts["scale"].raw.view(np.float32)
    assert parts["q"].shape == shape
    assert len(q) == n
    assert np.isfinite(scales).all()
    assert (scales >= 0).all()
    each = np.repeat(scales, n // max(1, len(scales)))
    found = q.astype(np.float32) * each
    assert ((np.sign(found) == 0) | (np.sign(found) == np.sign(delta))).all()
    normal = each > 1e-36
    assert (np.abs(found - delta)[normal] <= 0.501 * each[normal]).all()
    if scale == 0:
        assert not found.any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_int8_refuses_what_it_cannot_scale(base: Base, packs: PackStore, bad: float) -> None:
    delta = DELTAS[NORM].copy()
    delta[3] = bad
    with pytest.raises(UsageError, match="infinite or undefined"):
        keep({NORM: delta}, base.manifest, packs, encoding="int8")
    assert _nothing_stored(packs)


def test_keeping_is_deterministic(tmp_path: Path, base: Base, packs: PackStore) -> None:
    for encoding in ("float", "int8"):
        first = keep(DELTAS, base.manifest, packs, encoding=encoding, threads=1).id
        other = store(tmp_path / encoding)
        assert keep(dict(reversed(DELTAS.items())), base.manifest, other, encoding=encoding).id == first
        assert other.path(first).read_bytes() == packs.path(first).read_bytes()


def test_an_unknown_encoding(base: Base, packs: PackStore) -> None:
    with pytest.raises(FormatError, match="'quantum'"):
        keep(DELTAS, base.manifest, packs, encoding="quantum")


def test_packs_are_read_only_files_and_nothing_else(tmp_path: Path, base: Base) -> None:
    packs = store(tmp_path / "store")
    vector = kept(base, packs, DELTAS)
    assert files_below(tmp_path / "store") == {
        "packs",
        "tmp",
        "quarantine",
        f"packs/{vector[:2]}",
        f"packs/{vector[:2]}/{vector}",
    }
    assert packs.path(vector).stat().st_mode & 0o222 == 0
