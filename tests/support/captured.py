"""A base, a checkpoint captured against it, and builds and exports of it, for tests of what comes back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry.packs.store import PackStore
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.build import build
from pv.vecstore.merge.export import export
from pv.vecstore.tensors.array import Array, storage_dtype
from pv.vecstore.tensors.formats import FLOATS
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector, open_vector
from support.vectors import (
    Tensors,
    array,
    base_at,
    behaviour,
    captured,
    kept,
    persona,
    random_f32,
    read_all,
    same_bits,
    save,
    store,
)

__all__ = ["FAR", "OWN", "REAL", "TUNED", "Pair", "bits", "like", "pair"]

REAL = (0xB960, 0xB00E)  # bf16, of a real pair: the base -2.136e-4, and the checkpoint -5.166e-10


@dataclass(frozen=True)
class Pair:
    """A base, a checkpoint captured against it, and another vector that moves every one of its floats."""

    base: Base
    own: Tensors
    tuned: Tensors
    exact: str
    other: str
    vectors: Mapping[str, Vector]
    packs: PackStore
    out: Path

    def built(self, made: Persona, **options: Any) -> dict[str, Array]:
        folder = self.out / f"{len(list(self.out.iterdir()))}"
        build(made, self.base, self.vectors, folder, **{"side_files": {}, **options})
        return read_all(folder)

    def of(self, behaviours: Mapping[str, Behaviour], **options: Any) -> Persona:
        return persona(self.base, behaviours, **options)

    def alone(self, **options: Any) -> Persona:
        return self.of({"x": behaviour(1.0, self.exact)}, **options)

    def exported(self, **options: Any) -> dict[str, Array]:
        folder = self.out / f"{len(list(self.out.iterdir()))}"
        export(self.vectors[self.exact], self.base, folder, **{"side_files": {}, **options})
        return read_all(folder)


@contextmanager
def pair(folder: Path, own: Tensors, tuned: Tensors) -> Iterator[Pair]:
    with base_at(save(folder / "base", own)) as base:
        packs = store(folder)
        exact = captured(folder / "ft", tuned, base, packs).id
        floats = {n: t.raw.size for n, t in own.items() if t.dtype in FLOATS}
        other = kept(base, packs, {n: random_f32(f"other {n}", k, least=100) for n, k in floats.items()})
        (folder / "out").mkdir()
        opened = {v: open_vector(v, base, packs) for v in (exact, other)}
        yield Pair(base, own, tuned, exact, other, opened, packs, folder / "out")
        for vector in opened.values():
            vector.close()


def like(tensors: Tensors, wanted: Tensors) -> bool:
    return tensors.keys() == wanted.keys() and all(same_bits(t, wanted[n]) for n, t in tensors.items())


def bits(dtype: str, *patterns: int) -> Array:
    return Array(dtype, (len(patterns),), np.array(patterns, storage_dtype(dtype)))


FAR = {
    "a": (array("a", "BF16", 40, 30), array("a", "BF16", 40, 30, seed=2)),
    "b": (bits("BF16", REAL[0], 0x8000, 0, 0x7FC1), bits("BF16", REAL[1], 0, 0x8000, 0x7FC2)),
    "c": (array("c", "F32", 700), array("c", "F32", 700, seed=2)),
}
OWN, TUNED = ({n: p[i] for n, p in FAR.items()} | {"frozen": array("z", "BF16", 9)} for i in (0, 1))
