"""A tensor that is put together from byte ranges of others."""

from __future__ import annotations

from collections.abc import Sequence

from pv.vecstore.checkpoints.checkpoint import Weights
from pv.vecstore.checkpoints.moe import Piece

__all__ = ["read_pieces"]


def read_pieces(
    weights: Weights, pieces: Sequence[Piece], start: int = 0, stop: int | None = None
) -> memoryview:
    """Raw bytes `start` to `stop` of what the pieces are together."""
    end = sum(piece.nbytes for piece in pieces) if stop is None else stop
    parts, offset = [], 0
    for piece in pieces:
        low, high = max(start - offset, 0), min(end - offset, piece.nbytes)
        if low < high:
            parts.append(weights.read(piece.name, piece.start + low, piece.start + high))
        offset += piece.nbytes
    return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))
