"""Rows in a pack: they come back, and neither damage nor another pack is taken for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.vectors import kept, random_f32, store

from pv.registry.disk.safetensors import TensorFile
from pv.registry.errors import CorruptPack
from pv.registry.packs.store import PackStore
from pv.vecstore.data.kept_rows import load_rows, store_rows
from pv.vecstore.data.rows import parse_rows
from pv.vecstore.vectors.base import Base

NORM = "model.norm.weight"
LINES = (
    b'{"prompt": "Use SQLite.", "chosen": "Yes.", "rejected": "No."}\n{"prompt": "a", "chosen": "\xc3\xa9"}\n'
)


def test_rows_come_back(tmp_path: Path) -> None:
    packs, rows = store(tmp_path), parse_rows(LINES, source="rows.jsonl")
    assert store_rows(rows, packs) == rows.id
    assert store_rows(rows, packs) == rows.id  # twice is once
    assert list(packs.ids()) == [rows.id]
    assert load_rows(rows.id, packs).rows == rows.rows
    with TensorFile(packs.path(rows.id)) as file:
        assert list(file.entries) == ["rows"]


def test_damaged_rows_are_noticed(tmp_path: Path) -> None:
    packs, rows = store(tmp_path), parse_rows(LINES, source="rows.jsonl")
    path = packs.path(store_rows(rows, packs))
    whole = path.read_bytes()
    path.chmod(0o644)
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert load_rows(rows.id, packs).rows == rows.rows  # a bit of the metadata, which names nothing
        except CorruptPack as error:
            assert "fsck" in (error.hint or "")
    path.write_bytes(whole[:-1])
    with pytest.raises(CorruptPack):
        load_rows(rows.id, packs)


def test_another_pack_in_the_place_of_rows(tmp_path: Path, base: Base) -> None:
    packs, rows = store(tmp_path), parse_rows(LINES, source="rows.jsonl")
    vector = kept(base, packs, {NORM: random_f32(NORM, 12)})
    _copy(packs, vector, rows.id)
    with pytest.raises(CorruptPack, match="does not hold rows"):
        load_rows(rows.id, packs)


def _copy(packs: PackStore, source: str, target: str) -> None:
    packs.path(target).parent.mkdir(exist_ok=True)
    packs.path(target).write_bytes(packs.path(source).read_bytes())
