"""A pinned base stands in for a lost or damaged one, and a base that changes meanwhile is not pinned."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vectors import array, base_at, save, small_base, store

from pv.registry.errors import IntegrityError
from pv.registry.manifest import BaseManifest
from pv.vecstore.packs.codecs.chunks import CHUNK
from pv.vecstore.packs.read import Pack
from pv.vecstore.vectors.base import Base, open_base
from pv.vecstore.vectors.pinned import pin

TENSORS = small_base()


def test_a_pinned_base_stands_in_for_a_lost_one(tmp_path: Path) -> None:
    from dataclasses import replace

    big = {**TENSORS, "big": array("big", "BF16", 2 * CHUNK // 1000 + 1, 1000)}  # three chunks
    folder = save(tmp_path / "base", big)
    with base_at(folder) as base:
        manifest = replace(base.manifest, pinned=True)
        packs = store(tmp_path)
        pin(base.weights, manifest, packs)
    assert packs.has(manifest.id)
    (folder / "model.safetensors").unlink()
    with open_base(manifest, packs) as pinned:
        assert pinned.checkpoint is None
        for name, tensor in big.items():
            assert pinned.tensor(name).raw.tobytes() == tensor.raw.tobytes()
            assert pinned.raw(name).tobytes() == tensor.raw.tobytes()
        for start, stop in [(0, 1), (CHUNK - 1, CHUNK + 1), (CHUNK, 2 * CHUNK), (5, 5), (7, 2 * CHUNK + 1)]:
            assert pinned.raw("big", start, stop).tobytes() == big["big"].raw[start:stop].tobytes()


@pytest.mark.parametrize("damage", ["truncated", "removed shard", "emptied"])
def test_a_pinned_base_stands_in_for_a_damaged_one(tmp_path: Path, damage: str) -> None:
    folder = save(tmp_path / "base", TENSORS, shards=2)
    with base_at(folder) as base:
        manifest, packs = base.manifest, store(tmp_path)
        pin(base.weights, manifest, packs)
    shard = folder / "model-00001-of-00002.safetensors"
    if damage == "truncated":
        shard.write_bytes(shard.read_bytes()[:-1])
    elif damage == "removed shard":
        shard.unlink()
    else:
        for file in folder.iterdir():
            file.unlink()
    with open_base(manifest, packs) as pinned:
        assert pinned.tensor("model.norm.weight").raw.tobytes() == TENSORS["model.norm.weight"].raw.tobytes()


def test_a_damaged_base_without_a_pin_says_so(tmp_path: Path) -> None:
    folder = save(tmp_path / "base", TENSORS)
    with base_at(folder) as base:
        manifest = base.manifest
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="truncated"):
        open_base(manifest, store(tmp_path))


def test_a_base_that_changes_while_it_is_pinned(tmp_path: Path) -> None:
    from pv.registry.errors import BaseMismatch

    folder = save(tmp_path / "base", TENSORS)
    packs = store(tmp_path)
    with base_at(folder) as base:
        _overwrite_last_byte(folder / "model.safetensors")
        with pytest.raises(BaseMismatch, match="changed"):
            pin(base.weights, base.manifest, packs)
    assert list(packs.ids()) == []
    assert list(packs.tmp.iterdir()) == []


def _overwrite_last_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    with path.open("r+b") as file:
        file.write(data)


def test_the_manifest_of_a_base_is_read_back(tmp_path: Path, base: Base) -> None:
    packs = store(tmp_path)
    pin(base.weights, base.manifest, packs)
    with Pack(packs.path(base.manifest.id), expect=base.manifest.id) as pack:
        assert isinstance(pack.manifest, BaseManifest)
        assert dict(pack.manifest.tensors) == dict(base.manifest.tensors)
        assert pack.checksum_holds()
