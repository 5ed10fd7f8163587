"""From arrays to a stored vector: what captures, trains and derives one ends here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.progress import Added, Progress, counted
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.encodings import by_name, noted
from pv.vecstore.vectors.vector import slicer

__all__ = ["encode_vector", "write_vector"]


def encode_vector(
    deltas: Mapping[str, F32],
    base: BaseManifest,
    packs: PackStore,
    *,
    encoding: str = "int8",
    options: Mapping[str, Any] = MappingProxyType({}),
    threads: int = 2,
    progress: Progress | None = None,
) -> VectorManifest:
    """Keep deltas {tensor name: float32 tau, any shape} in an encoding; returns the manifest of the vector."""
    encoder = by_name(encoding)
    parts: list[Part] = []
    for name in sorted(deltas):
        shape = base.tensors[name].shape
        for part, array in encoder.encode(deltas[name].reshape(-1), shape, **options).items():
            parts.append(Part(name, part, array.dtype, array.shape, slicer(array.raw)))
    advance = counted(progress, sum(part.nbytes for part in parts))
    return write_vector(
        parts, base.id, encoding, packs, options=noted(options), threads=threads, progress=advance
    )


def write_vector(
    parts: Sequence[Part],
    base: str,
    encoding: str,
    packs: PackStore,
    *,
    options: Mapping[str, Any] | None = None,
    smallest: bool = False,
    threads: int = 2,
    progress: Added | None = None,
) -> VectorManifest:
    """Write the pack of a vector from its encoded parts; returns its manifest."""

    def manifest(rows: dict[tuple[str, str], TensorRow]) -> VectorManifest:
        tensors: dict[str, dict[str, TensorRow]] = {}
        for (name, part), row in rows.items():
            tensors.setdefault(name, {})[part] = row
        return VectorManifest(base, encoding, tensors, options or {})

    with packs.writer() as out:
        made = write_pack(out.file, parts, manifest, smallest=smallest, threads=threads, progress=progress)
        out.commit(made.id)
    assert isinstance(made, VectorManifest)
    return made
