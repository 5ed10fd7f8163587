"""Steering vectors in the store: what is written comes back bit for bit, of its own base, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.vectors import FLOATING, kept, random_f32, store

from pv.registry.errors import (
    BaseMismatch,
    CheckpointRefused,
    CorruptPack,
    FormatError,
    NotFoundError,
    UsageError,
)
from pv.registry.manifest import VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs import read as packs_module
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.steering import open_steering, write_steering
from pv.vecstore.vectors.vector import open_vector

BASE = "ab" * 32
SITES = ("model.layers.1", "model.layers.0.self_attn.o_proj:input[3/9]", "conv")

directions = st.dictionaries(
    st.sampled_from(SITES),
    arrays.arrays(
        np.float32,
        st.sampled_from([(1,), (5,), (2, 3, 4)]),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
    ),
    min_size=1,
).filter(lambda made: any(one.any() for one in made.values()))


@given(made=directions)
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_written_comes_back(made: dict[str, Any], packs: PackStore) -> None:
    manifest = write_steering(made, BASE, packs)
    assert manifest.is_steering and dict(manifest.options) == {}
    assert VectorManifest.from_bytes(manifest.to_bytes()) == manifest
    found = open_steering(manifest.id, BASE, packs)
    assert {site: (one.shape, one.tobytes()) for site, one in found.items()} == {
        site: (one.shape, one.tobytes()) for site, one in made.items()
    }


def test_the_id_is_of_base_sites_and_numbers(packs: PackStore) -> None:
    one = random_f32("one", 8)
    first = write_steering({"a": one}, BASE, packs).id
    assert write_steering({"a": one.copy()}, BASE, packs).id == first
    others = [
        write_steering({"b": one}, BASE, packs),
        write_steering({"a": one}, "cd" * 32, packs),
        write_steering({"a": one.reshape(2, 4)}, BASE, packs),
        write_steering({"a": -one}, BASE, packs),
    ]
    assert len({first, *(other.id for other in others)}) == 5


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ({}, "1 to 10000 sites, not 0"),
        ({"": np.ones(3, np.float32)}, "cannot name a site"),
        ({"a\x1b[1m": np.ones(3, np.float32)}, "cannot name a site"),
        ({"a" * 257: np.ones(3, np.float32)}, "cannot name a site"),
        ({"a": np.ones(3)}, "float64"),
        ({"a": np.float32(1).reshape(())}, "shape"),
        ({"a": np.ones((2, 0), np.float32)}, "shape"),
        ({"a": np.array([1, np.nan], np.float32)}, "not finite"),
        ({"a": np.array([1, -np.inf], np.float32)}, "not finite"),
        ({"a": np.zeros(3, np.float32)}, "every direction is zero"),
    ],
)
def test_what_is_no_direction_is_refused(made: Any, said: str, packs: PackStore) -> None:
    with pytest.raises(UsageError, match=said):
        write_steering(made, BASE, packs)
    assert list(packs.ids()) == []


def test_of_another_base_missing_or_another_kind(base: Base, packs: PackStore) -> None:
    mine = write_steering({"a": np.ones(3, np.float32)}, BASE, packs).id
    with pytest.raises(BaseMismatch, match=r"measured in base abababababab, this is cdcdcdcdcdcd"):
        open_steering(mine, "cd" * 32, packs)
    with pytest.raises(NotFoundError, match="not in this registry's packs"):
        open_steering("ef" * 32, BASE, packs)
    task = kept(base, packs, {FLOATING[0]: random_f32("tau", 40 * 12)})
    with pytest.raises(FormatError, match="is a task vector"):
        open_steering(task, base.manifest.id, packs)
    steering = write_steering({FLOATING[0]: np.ones(12, np.float32)}, base.manifest.id, packs).id
    with pytest.raises(UsageError, match="is a steering vector"):
        open_vector(steering, base, packs)


def test_a_changed_byte_is_found(packs: PackStore) -> None:
    vector = write_steering({"a": random_f32("a", 64)}, BASE, packs).id
    path = packs.path(vector)
    data = bytearray(path.read_bytes())
    data[-9] ^= 0x10
    path.unlink()
    path.write_bytes(data)
    with pytest.raises(CorruptPack):
        open_steering(vector, BASE, packs)


def test_a_few_bytes_do_not_stand_for_a_large_vector(
    packs: PackStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = np.zeros(1_000_000, np.float32)
    large[0] = 1
    vector = write_steering({"a": large}, BASE, packs).id
    monkeypatch.setattr(packs_module, "BELIEVED", 1000)
    monkeypatch.setattr(packs_module, "LARGEST_RATIO", 1)
    with pytest.raises(CorruptPack, match="no steering vector is like that"):
        open_steering(vector, BASE, packs)
    other = store(tmp_path / "other")
    with pytest.raises(CheckpointRefused, match="no steering vector like that"):
        write_steering({"a": large}, BASE, other)
    assert list(other.ids()) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"options": {"rank": 1}}, "no options"),
        ({"tensors": {}}, "1 to 10000 sites, not 0"),
        ({"tensors": {"a": {"tau": ["F32", [2], "ab" * 32]}}}, "must have one part, a direction"),
        ({"tensors": {"a": {"direction": ["BF16", [2], "ab" * 32]}}}, "must have one part, a direction"),
        ({"tensors": {"a": {"direction": ["F32", [], "ab" * 32]}}}, "must have one part, a direction"),
        ({"tensors": {"a": {"direction": ["F32", [0], "ab" * 32]}}}, "must have one part, a direction"),
        ({"tensors": {"s" * 257: {"direction": ["F32", [2], "ab" * 32]}}}, "cannot be a site"),
    ],
)
def test_a_manifest_that_is_none_is_refused(change: dict[str, Any], said: str, packs: PackStore) -> None:
    manifest = write_steering({"a": np.ones(2, np.float32)}, BASE, packs)
    document = {**manifest.to_json(), **change}
    document["id"] = replace(manifest, options=document["options"]).id
    with pytest.raises(FormatError, match=said):
        VectorManifest.from_json(document)
