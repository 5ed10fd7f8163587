"""The task vector of one behaviour, as numpy sees it."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pv.registry.disk.closing import Closing
from pv.registry.errors import UsageError
from pv.registry.provenance import Provenance
from pv.registry.provenance_ways import as_behaviour
from pv.vecstore.merge.delta import delta
from pv.vecstore.repo.opening import opened

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["TaskVector"]


class TaskVector(Closing):
    """tau of a behaviour at weight 1: the sum of its terms, mostly one. Nothing is decoded until it is asked for.

    Files stay open until `close`, the end of a `with`, or the end of the object.
    """

    def __init__(self, revision: Revision, name: str) -> None:
        """Raises UnknownBehaviour, MissingBase, NotFoundError."""
        self.name = name
        self.terms = revision.behaviour(name).terms
        self._alone = revision.alone(name)
        stack = ExitStack()
        self._close = weakref.finalize(self, stack.close)
        self._at = stack.enter_context(opened(revision.registry, revision.commit, [self._alone]))
        self._revision = revision

    @property
    def encodings(self) -> tuple[str, ...]:
        """How its vectors are kept, in order of their ids."""
        return tuple(self._at.vectors[v].manifest.encoding for v in self._alone.task_vectors)

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The tensors that it moves, sorted, with their shapes."""
        names = {name for vector in self._at.vectors.values() for name in vector.manifest.tensors}
        return {name: self._at.base.manifest.tensors[name].shape for name in sorted(names)}

    def tau(self, tensor: str) -> NDArray[np.float32]:
        """W_finetuned - W_base of one tensor, float32, in the tensor's shape; zeros where it moves nothing.

        Raises UsageError for a tensor that the base does not have, CorruptPack, BaseMismatch.
        """
        if not self._close.alive:
            raise UsageError("this task vector is closed", hint="ask the revision for it again")
        row = self._at.base.manifest.tensors.get(tensor)
        if row is None:
            raise UsageError(
                f"the base has no tensor {tensor[:200]!r}", hint="`shapes` lists those that moved"
            )
        found = delta(self._alone, self._at.vectors, tensor)
        return np.zeros(row.shape, np.float32) if found is None else found.reshape(row.shape)

    def provenance(self) -> tuple[Provenance, ...]:
        """Where each of its vectors came from, in order of their ids."""
        registry, commit = self._revision.registry, self._revision.commit
        return tuple(
            as_behaviour(registry.provenance(commit, vector), self.name)
            for vector in self._alone.task_vectors
        )

    def close(self) -> None:
        self._close()

    def __repr__(self) -> str:
        return f"<TaskVector {self.name}: {', '.join(self.encodings)}, {len(self.shapes)} tensors>"
