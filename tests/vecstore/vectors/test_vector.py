"""Opening vectors and keeping deltas: what comes back, and what does not fit its base."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.vectors import (
    base_at,
    captured,
    files_below,
    kept,
    nothing_stored,
    nudged,
    put,
    random_f32,
    save,
    small_base,
    store,
)

from pv.registry.errors import (
    BaseMismatch,
    CorruptPack,
    FormatError,
    IntegrityError,
    NotFoundError,
    PvError,
    UsageError,
)
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.codecs.chunks import CHUNK
from pv.vecstore.packs.read import Pack
from pv.vecstore.packs.write import Part
from pv.vecstore.tensors.array import storage_dtype
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encode import encode_vector
from pv.vecstore.vectors.encodings import int8
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.vector import open_vector

TENSORS = small_base()
NORM = "model.norm.weight"
POSITIONS = "model.position_ids"


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
    storage = storage_dtype(dtype)
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
        encode_vector({NORM: delta}, base.manifest, packs, encoding="int8")
    assert nothing_stored(packs)


def test_keeping_is_deterministic(tmp_path: Path, base: Base, packs: PackStore) -> None:
    for encoding in ("float", "int8"):
        first = encode_vector(DELTAS, base.manifest, packs, encoding=encoding, threads=1).id
        other = store(tmp_path / encoding)
        assert (
            encode_vector(dict(reversed(DELTAS.items())), base.manifest, other, encoding=encoding).id == first
        )
        assert other.path(first).read_bytes() == packs.path(first).read_bytes()


def test_an_unknown_encoding(base: Base, packs: PackStore) -> None:
    with pytest.raises(FormatError, match="'quantum'"):
        encode_vector(DELTAS, base.manifest, packs, encoding="quantum")


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
