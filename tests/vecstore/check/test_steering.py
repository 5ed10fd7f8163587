"""A deep check of steering vectors: decoded without their base, and deceived by no checksum."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from support.commands import isolate
from support.registries import new_registry
from support.steering import SITES, add_steering, directions

from pv.registry import ids
from pv.registry.check import fsck
from pv.registry.check.report import Report
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.registry import Registry
from pv.vecstore.check import decode
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.vector import slicer


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    isolate(tmp_path, monkeypatch)
    (tmp_path / "repo").mkdir()
    with new_registry(tmp_path / "repo") as made:
        add_steering(made, "formal", 1)
        yield made


def deep(registry: Registry) -> Report:
    return decode.deep(registry.root, fsck.check(registry.root))


def forge(registry: Registry, stored: Mapping[str, F32], claimed: Mapping[str, F32]) -> str:
    """A pack whose checksum is right, of some directions, that claims to hold others."""
    parts = [
        Part(site, "direction", "F32", one.shape, slicer(one.view("<u4"))) for site, one in stored.items()
    ]
    rows = {
        site: {"direction": TensorRow("F32", one.shape, ids.tensor_id("F32", one.shape, one.tobytes()))}
        for site, one in claimed.items()
    }
    manifest = VectorManifest(registry.base().id, "steering", rows)
    registry.packs.path(manifest.id).unlink(missing_ok=True)
    with registry.packs.writer() as out:
        write_pack(out.file, parts, lambda _: manifest)
        out.commit(manifest.id)
    return manifest.id


def test_a_whole_one_needs_no_base(registry: Registry) -> None:
    found = deep(registry)
    assert found.clean and found.deep and found.undecoded == ()


def test_other_directions_than_the_id_names(registry: Registry) -> None:
    vector = forge(registry, directions(2), directions(1))
    assert vector == registry.persona().steering_vectors[0]
    assert fsck.check(registry.root).clean, "the file is what was written"
    (finding,) = deep(registry).damage
    assert "do not hash to its id" in finding.what and finding.behaviours == ("steering formal",)


def test_numbers_that_are_not_finite(registry: Registry) -> None:
    wrong = {site: one.copy() for site, one in directions(3).items()}
    wrong[SITES[0]][2] = np.nan
    forge(registry, wrong, wrong)
    (finding,) = deep(registry).damage
    assert "not finite" in finding.what and SITES[0] in finding.what
