"""The sketch of a vector, from its pack."""

from __future__ import annotations

from pv.vecstore.forecast.sketch import Sketch, Sketching
from pv.vecstore.progress import Progress
from pv.vecstore.vectors.vector import Vector

__all__ = ["sketch_of"]


def sketch_of(vector: Vector, progress: Progress | None = None) -> Sketch:
    """One tensor at a time. Raises CorruptPack, BaseMismatch."""
    names = sorted(vector.manifest.tensors)
    sketching = Sketching(vector.base.manifest.tensors)
    for done, name in enumerate(names, 1):
        sketching.add(name, vector.tau(name))
        if progress is not None:
            progress(done, len(names))
    return sketching.done()
