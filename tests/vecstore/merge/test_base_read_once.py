"""A build reads and hashes each tensor of the base once, however many vectors it decodes: counted."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from support.vectors import Tensors, base_at, captured, nudged, persona, save, small_base, store

from pv.registry import ids
from pv.registry.persona import Behaviour, Term
from pv.vecstore.checkpoints.checkpoint import Weights
from pv.vecstore.merge.build import build
from pv.vecstore.merge.compare import compare
from pv.vecstore.merge.compute import _written
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import open_vector


@dataclass
class Counting:
    """Weights that count the bytes that are read of each tensor."""

    weights: Weights
    read_bytes: Counter[str] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def specs(self) -> Any:
        return self.weights.specs

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        data = self.weights.read(name, start, stop)
        with self.lock:
            self.read_bytes[name] += len(data)
        return data


class World:
    def __init__(self, folder: Path, count: int) -> None:
        tensors: Tensors = small_base()
        self.base = base_at(save(folder / "base", tensors))
        packs = store(folder)
        made = [
            captured(folder / f"ft{n}", nudged(tensors, 4 + n), self.base, packs).id for n in range(count)
        ]
        self.counting = Counting(self.base.weights)
        counted = Base(self.base.manifest, self.counting, self.base.close)
        self.vectors = {v: open_vector(v, counted, packs) for v in made}
        self.counted = counted
        self.behaviours = {f"b{n}": Behaviour(0.5, (Term(1.0, v),)) for n, v in enumerate(made)}

    @property
    def sizes(self) -> dict[str, int]:
        return {name: row.nbytes for name, row in self.base.manifest.tensors.items() if row.nbytes}

    def read(self) -> dict[str, int]:
        return {name: n for name, n in self.counting.read_bytes.items() if n}

    def close(self) -> None:
        for vector in self.vectors.values():
            vector.close()
        self.base.close()


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_build(tmp_path: Path, count: int, threads: int) -> None:
    world = World(tmp_path, count)
    hashed: Counter[str] = Counter()

    def profile(frame: FrameType, event: str, _: Any) -> None:
        """Every hash of a tensor that is read from the base, or written."""
        if event != "call" or frame.f_back is None:
            return
        written = frame.f_code is ids.tensor_hash.__code__ and frame.f_back.f_code is _written.__code__
        if written or frame.f_code is ids.tensor_id.__code__:
            shape = tuple(frame.f_locals["shape"])
            hashed[f"{frame.f_locals['dtype']} {shape}"] += 1

    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        build(
            persona(world.counted, world.behaviours), world.counted, world.vectors, tmp_path / "out",
            side_files={}, threads=threads,
        )  # fmt: skip
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert world.read() == world.sizes
    tensors = world.base.manifest.tensors
    touched = {name for vector in world.vectors.values() for name in vector.manifest.tensors}
    # Of the base each tensor once; of the result each that a vector touched: the others keep their id.
    wanted = Counter(f"{row.dtype} {row.shape}" for row in tensors.values())
    wanted += Counter(f"{tensors[name].dtype} {tensors[name].shape}" for name in touched)
    assert hashed == wanted
    world.close()


def test_a_comparison(tmp_path: Path) -> None:
    world = World(tmp_path, 3)
    touched = {name for vector in world.vectors.values() for name in vector.manifest.tensors}
    sizes = {name: size for name, size in world.sizes.items() if name in touched}
    empty, full = persona(world.counted, {}), persona(world.counted, world.behaviours)
    found = compare(empty, full, world.behaviours, world.counted, world.vectors)
    assert world.read() == sizes
    assert found.moved and len(found.pairs) == 3
    world.close()
