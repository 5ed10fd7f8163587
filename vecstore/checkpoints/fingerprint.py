"""The tensor table of a checkpoint: each tensor's id, hashed in pieces so that memory stays small."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from pv.registry import ids
from pv.registry.disk.safetensors import DTYPE_BITS
from pv.registry.manifest import TensorRow
from pv.vecstore.checkpoints.checkpoint import Weights

__all__ = ["Progress", "fingerprint", "row_of"]

PIECE_BYTES = 4 << 20

Progress = Callable[[int, int], None]
"""Called with (done, total) bytes as long work goes on, from one thread at a time."""


def row_of(weights: Weights, name: str) -> TensorRow:
    """dtype, shape and id of one tensor."""
    spec = weights.specs[name]
    digest = ids.tensor_hash(spec.dtype, spec.shape)
    nbytes = spec.numel * DTYPE_BITS[spec.dtype] // 8
    for start in range(0, nbytes, PIECE_BYTES):
        digest.update(weights.read(name, start, min(start + PIECE_BYTES, nbytes)))
    return TensorRow(spec.dtype, spec.shape, digest.hexdigest())


def fingerprint(
    weights: Weights, *, threads: int = 2, progress: Progress | None = None
) -> dict[str, TensorRow]:
    """Every tensor's row, in name order. The table's id is the base id."""
    names = sorted(weights.specs)
    total = sum(_nbytes(weights, name) for name in names)
    done = 0
    table: dict[str, TensorRow] = {}
    with ThreadPoolExecutor(threads) as pool:
        for name, row in zip(names, pool.map(lambda n: row_of(weights, n), names), strict=True):
            table[name] = row
            done += row.nbytes
            if progress:
                progress(done, total)
    return table


def _nbytes(weights: Weights, name: str) -> int:
    spec = weights.specs[name]
    return spec.numel * DTYPE_BITS[spec.dtype] // 8
