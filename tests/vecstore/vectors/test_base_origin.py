"""A base whose origin changes: with a pinned copy nothing is lost, without one it is an error, never other bytes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.vectors import base_at, nudged, save, small_base, store

from pv.registry.errors import BaseMismatch
from pv.registry.manifest import BaseManifest
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.repo import opening
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.vectors.base import open_base
from pv.vecstore.vectors.pinned import pin

TENSORS = small_base()
UP = "model.layers.0.mlp.up_proj.weight"
NORM = "model.norm.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save(tmp_path / "base", TENSORS)


@pytest.fixture
def packs(tmp_path: Path) -> PackStore:
    return store(tmp_path / "registry")


@pytest.fixture
def manifest(folder: Path) -> BaseManifest:
    with base_at(folder) as base:
        return base.manifest


@pytest.fixture
def pinned(folder: Path, packs: PackStore) -> BaseManifest:
    with base_at(folder) as base:
        pin(base.weights, base.manifest, packs)
        return base.manifest


def raw(name: str) -> bytes:
    return bytes(TENSORS[name].raw.tobytes())


def test_a_tensor_that_changed_is_read_from_the_copy(
    folder: Path, packs: PackStore, pinned: BaseManifest
) -> None:
    save(folder, nudged(TENSORS, 9, only=[UP]))
    with open_base(pinned, packs) as base:
        assert base.checkpoint is not None
        for name in TENSORS:
            assert base.tensor(name).raw.tobytes() == raw(name)
            assert base.raw(name).tobytes() == raw(name)
        assert base.raw(UP, 3, 9).tobytes() == TENSORS[UP].raw[3:9].tobytes()


def test_one_that_changes_while_the_base_is_open(
    folder: Path, packs: PackStore, pinned: BaseManifest
) -> None:
    """What was seen to be right a moment ago is not taken for right."""
    with open_base(pinned, packs) as base:
        assert base.tensor(UP).raw.tobytes() == raw(UP)
        assert base.raw(NORM).tobytes() == raw(NORM)
        save(folder, nudged(TENSORS, 9))
        assert base.tensor(UP).raw.tobytes() == raw(UP)
        assert base.tensor(NORM).raw.tobytes() == raw(NORM)


def test_without_a_copy_it_is_an_error(folder: Path, packs: PackStore, manifest: BaseManifest) -> None:
    with open_base(manifest, packs) as base:
        save(folder, nudged(TENSORS, 9, only=[UP]))
        assert base.tensor(NORM).raw.tobytes() == raw(NORM)
        with pytest.raises(BaseMismatch, match="has changed") as caught:
            base.tensor(UP)
        assert str(folder) in (caught.value.hint or "")


def test_with_a_damaged_copy_too(folder: Path, packs: PackStore, pinned: BaseManifest) -> None:
    """As long as the origin is right, a damaged copy does no harm."""
    path = packs.path(pinned.id)
    path.chmod(0o644)
    data = bytearray(path.read_bytes())
    begin = 8 + int.from_bytes(data[:8], "little")
    data[begin::16] = bytes(byte ^ 1 for byte in data[begin::16])
    path.write_bytes(data)
    with open_base(pinned, packs) as base:
        assert base.tensor(UP).raw.tobytes() == raw(UP)
    save(folder, nudged(TENSORS, 9, only=[UP]))
    with open_base(pinned, packs) as base:
        assert base.tensor(NORM).raw.tobytes() == raw(NORM)
        for read in (base.tensor, base.raw):
            with pytest.raises(BaseMismatch, match="copy of it in the registry is damaged"):
                read(UP)


@pytest.mark.parametrize("kind", ["hub", "path"])
def test_only_a_local_folder_is_handed_on_as_it_is(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A hub's cache may lack side files, or hold some that nobody has looked at."""
    origin = {"kind": "hub", "repo": "u/n", "revision": "a" * 40}
    if kind == "path":
        origin = {"kind": "path", "path": str(folder)}
    with base_at(folder) as base, Registry.creating(tmp_path / "home") as registry:
        manifest = replace(base.manifest, pinned=False, files=("config.json",), origin=origin)
        registry.start(Persona(manifest.id), manifest, {"config.json": b"{}"}, "Begin")
    monkeypatch.setattr(opening, "fetch", lambda repo, revision: folder)
    (folder / "model.py").write_text("raise SystemExit")
    with (
        Registry.find(tmp_path / "home") as registry,
        temporary_checkpoint(registry, registry.resolve("HEAD"), Persona(manifest.id)) as found,
    ):
        assert (found == folder) == (kind == "path")
        if kind == "hub":
            assert sorted(path.name for path in found.iterdir()) == [
                "config.json",
                "model.safetensors",
                "persona.json",
            ]
