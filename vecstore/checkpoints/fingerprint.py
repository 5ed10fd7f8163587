"""The tensor table of a checkpoint: each tensor's id, hashed in pieces so that memory stays small."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from pv.registry import ids
from pv.registry.manifest import TensorRow
from pv.vecstore.checkpoints.checkpoint import Weights
from pv.vecstore.progress import Progress

__all__ = ["fingerprint", "row_of", "table_id"]

PIECE_BYTES = 4 << 20


def row_of(weights: Weights, name: str) -> TensorRow:
    """dtype, shape and id of one tensor."""
    spec = weights.specs[name]
    digest = ids.tensor_hash(spec.dtype, spec.shape)
    nbytes = spec.nbytes
    for start in range(0, nbytes, PIECE_BYTES):
        digest.update(weights.read(name, start, min(start + PIECE_BYTES, nbytes)))
    return TensorRow(spec.dtype, spec.shape, digest.hexdigest())


def fingerprint(
    weights: Weights, *, threads: int = 2, progress: Progress | None = None
) -> dict[str, TensorRow]:
    """Every tensor's row, in name order. The table's id is the base id."""
    names = sorted(weights.specs)
    total = sum(weights.specs[name].nbytes for name in names)
    done = 0
    table: dict[str, TensorRow] = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, row in zip(names, pool.map(lambda n: row_of(weights, n), names), strict=True):
            table[name] = row
            done += row.nbytes
            if progress:
                progress(done, total)
    return table


def table_id(rows: Mapping[str, TensorRow]) -> str:
    """The id of a tensor table: of a base, or of the weights that a build gave."""
    return ids.base_id((name, row.dtype, row.shape, row.id) for name, row in rows.items())
