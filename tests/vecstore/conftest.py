"""Tiny checkpoints and a base that every test here may read, made once; a store; a world to build in.

Properties are never timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from support.tiny import tiny_checkpoint
from support.vectors import (
    FLOATING,
    World,
    base_at,
    captured,
    kept,
    nudged,
    random_f32,
    save,
    small_base,
    store,
)

from pv.registry.packs.store import PackStore
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import open_vector

# A busy machine is no defect.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_tied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bf16 Llama checkpoint with tied embeddings. Read it only."""
    return tiny_checkpoint(tmp_path_factory.mktemp("tied") / "base")


@pytest.fixture(scope="session")
def tiny_untied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with an output matrix of its own. Read it only."""
    return tiny_checkpoint(tmp_path_factory.mktemp("untied") / "base", tied=False)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Base]:
    """`small_base`, saved and opened. Read it only."""
    with base_at(save(tmp_path_factory.mktemp("base"), small_base())) as opened:
        yield opened


@pytest.fixture
def packs(tmp_path: Path) -> PackStore:
    return store(tmp_path / "store")


@pytest.fixture(scope="module")
def made_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Made once for each file. Build in a folder of your own, as `world` does."""
    folder = tmp_path_factory.mktemp("world")
    tensors, packs = small_base(), store(folder)
    tuned = nudged(tensors, 4)
    with base_at(save(folder / "base", tensors)) as base:
        deltas = [
            {n: random_f32(f"delta {n}", tensors[n].raw.size, seed=seed) for n in FLOATING} for seed in (1, 2)
        ]
        for delta in deltas[1].values():
            delta[1::2] = 0
        exact = captured(folder / "ft", tuned, base, packs).id
        a, b = kept(base, packs, deltas[0]), kept(base, packs, deltas[1])
        vectors = {v: open_vector(v, base, packs) for v in (exact, a, b)}
        known = {a: deltas[0], b: deltas[1]}
        yield World(base, packs, tuned, exact, a, b, known, vectors, folder / "unused")
        for vector in vectors.values():
            vector.close()


@pytest.fixture
def world(made_world: World, tmp_path: Path) -> World:
    (tmp_path / "built").mkdir()
    return replace(made_world, out=tmp_path / "built")
