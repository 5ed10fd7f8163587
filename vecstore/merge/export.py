"""Export: a captured checkpoint as it was, whatever any persona does with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from pv.registry import canonical
from pv.registry.dtypes import DTYPES
from pv.registry.manifest import BaseManifest, Spec, TensorRow, VectorManifest
from pv.vecstore.checkpoints.fingerprint import table_id
from pv.vecstore.checkpoints.side_files import EXPORT
from pv.vecstore.merge.compute import differing
from pv.vecstore.merge.folder import Finished, Write, Written, side_file, write_folder
from pv.vecstore.merge.shards import SHARD_BYTES, Shard, into_shards
from pv.vecstore.progress import Progress
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.vector import Vector

__all__ = ["expected_export", "export", "export_rows", "plan_export"]


def export(
    vector: Vector,
    base: Base,
    out: Path,
    *,
    side_files: Mapping[str, bytes],
    shard_bytes: int = SHARD_BYTES,
    threads: int = 2,
    force: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write the checkpoint of an `exact` vector to the folder `out`: its own tensors, in the dtypes they came in.

    The frozen ones, and the side files, are the base's. Raises BaseMismatch, CorruptPack, StorageError, FormatError.
    """

    def tensor(name: str, _: str, write: Write) -> Finished:
        return _tensor(vector, base, name, write)

    def and_what_it_is(weights: str) -> dict[str, bytes]:
        return _beside(vector.manifest, base.manifest, side_files, weights)

    shards = plan_export(vector, base.manifest, shard_bytes=shard_bytes)
    return write_folder(
        out, shards, tensor, and_what_it_is, threads=threads, force=force, progress=progress, what=vector.id
    )


def plan_export(vector: Vector, base: BaseManifest, *, shard_bytes: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """The files that an export goes into."""
    rows = export_rows(vector.manifest, base)
    return into_shards({name: Spec(row.dtype, row.shape) for name, row in rows.items()}, shard_bytes)


def expected_export(
    vector: VectorManifest, base: BaseManifest, side_files: Mapping[str, bytes]
) -> tuple[dict[str, TensorRow], dict[str, bytes]]:
    """What an export of an `exact` vector holds: the table of its tensors, and the files beside them."""
    rows = export_rows(vector, base)
    return rows, _beside(vector, base, side_files, table_id(rows))


def export_rows(vector: VectorManifest, base: BaseManifest) -> dict[str, TensorRow]:
    """The tensors of the checkpoint that an `exact` vector is."""
    return {**base.tensors, **{name: parts["ft"] for name, parts in vector.tensors.items()}}


def _beside(
    vector: VectorManifest, base: BaseManifest, side_files: Mapping[str, bytes], weights: str
) -> dict[str, bytes]:
    word = _torch_dtype(export_rows(vector, base), base.tensors)
    said = {"schema": 1, "base": base.id, "vector": vector.id, "weights": weights}
    files = {name: side_file(name, data, word) for name, data in side_files.items()}
    return {**files, EXPORT: canonical.dumps(said)}


def _tensor(vector: Vector, base: Base, name: str, write: Write) -> Finished:
    own = base.tensor(name)
    if name not in vector.manifest.tensors:
        write(own.raw.data.cast("B"))
        return Finished(name, own.row, None)
    row, raw = vector.kept(name, own)
    write(raw.data.cast("B"))
    return Finished(name, row, differing(raw, row.dtype, own.raw, own.row.dtype))


def _torch_dtype(specs: Mapping[str, Spec], own: Mapping[str, Spec]) -> str | None:
    """What config.json has to say: the dtype that most weights have; None if it is that of the base."""

    def main(tensors: Mapping[str, Spec]) -> str:
        counts = Counter[str]()
        for spec in tensors.values():
            counts[spec.dtype] += spec.numel if DTYPES[spec.dtype].is_float else 0
        return max(sorted(counts), key=counts.__getitem__)

    return DTYPES[main(specs)].torch if main(specs) != main(own) else None
