"""A base can be pinned only as far as it can be believed when it is read again; a vector's word is its base's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.vectors import array, base_at, captured, save, store

from pv.registry.errors import CheckpointRefused, CorruptPack
from pv.vecstore.packs import read as packs_module
from pv.vecstore.packs.read import LARGEST_RATIO, Pack
from pv.vecstore.tensors.array import Array
from pv.vecstore.vectors.base import open_base
from pv.vecstore.vectors.pinned import pin
from pv.vecstore.vectors.vector import open_vector

BELIEVED = 100_000


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound itself, small enough to be tried."""
    monkeypatch.setattr(packs_module, "BELIEVED", BELIEVED)


def zeros(count: int) -> Array:
    return Array("BF16", (count,), np.zeros(count, "<u2"))


def test_a_base_of_next_to_nothing_is_not_pinned(tmp_path: Path) -> None:
    packs = store(tmp_path / "store")
    with base_at(save(tmp_path / "base", {"a": array("a", "BF16", 9), "z": zeros(BELIEVED)})) as base:
        with pytest.raises(CheckpointRefused, match=r"tensor 'z' has \d+ bytes, packed into \d+") as caught:
            pin(base.weights, base.manifest, packs)
        assert "--reference" in (caught.value.hint or "")
        assert not packs.has(base.manifest.id)
        assert not list(packs.tmp.iterdir())


def test_a_little_of_nothing_is_believed(tmp_path: Path) -> None:
    packs = store(tmp_path / "store")
    folder = save(tmp_path / "base", {"z": zeros(BELIEVED // 2)})
    with base_at(folder) as base:
        pin(base.weights, base.manifest, packs)
    (folder / "model.safetensors").unlink()
    with open_base(base.manifest, packs) as pinned:
        assert not pinned.tensor("z").raw.any()


def test_what_was_believed_when_it_was_written_is_believed_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bound is one function on both sides: with any bound, a pack is written if and only if it opens."""
    packs = store(tmp_path / "store")
    with base_at(save(tmp_path / "base", {"a": array("a", "BF16", 999), "z": zeros(5000)})) as base:
        pin(base.weights, base.manifest, packs)
        with Pack(packs.path(base.manifest.id)) as pack:
            stored = {name: sum(sizes) for (name, _), (_, sizes) in pack._chunks.items()}
        monkeypatch.setattr(packs_module, "BELIEVED", 10_000 - LARGEST_RATIO * stored["z"])
        Pack(packs.path(base.manifest.id)).close()
        monkeypatch.setattr(packs_module, "BELIEVED", 9_999 - LARGEST_RATIO * stored["z"])
        with pytest.raises(CorruptPack, match="no base is like that"):
            Pack(packs.path(base.manifest.id))
        with pytest.raises(CheckpointRefused):
            pin(base.weights, base.manifest, store(tmp_path / "other"))


def test_a_vector_may_stand_for_as_much_as_its_base(tmp_path: Path) -> None:
    """One element of many moved: the pack is a thousandth of a thousandth of what it stands for."""
    packs = store(tmp_path / "store")
    count = 2_000_000
    before, after = {"z": zeros(count)}, {"z": zeros(count)}
    after["z"].raw[12345] = 0x3F80
    with base_at(save(tmp_path / "base", before)) as base:
        manifest = captured(tmp_path / "ft", after, base, packs)
        with Pack(packs.path(manifest.id)) as pack:
            stored = sum(pack._chunks["z", "ft"][1])
        assert 2 * count > BELIEVED + LARGEST_RATIO * stored
        with open_vector(manifest.id, base, packs) as vector:
            tau = vector.tau("z")
    assert tau[12345] == 1 and np.count_nonzero(tau) == 1
