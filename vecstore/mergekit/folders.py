"""Checkpoint folders in the places of a base and its vectors: nothing is captured, packed or hashed beforehand.

A vector is the difference of a model and the base, as `exact` vectors have it; each tensor is read when it is computed.
An infinity or NaN in a model is found as its tensor is read: merged, it would be lost, or spread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from pv.registry.errors import IntegrityError
from pv.registry.manifest import BaseManifest, Spec, TensorRow, VectorManifest
from pv.vecstore.checkpoints.align import Aligned
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Weights, read_raw
from pv.vecstore.merge.columns import Columns
from pv.vecstore.merge.plan import Operand
from pv.vecstore.merge.selection import taken
from pv.vecstore.merge.selection import trimmed as largest
from pv.vecstore.merge.share import Voice
from pv.vecstore.tensors.array import F32, Array, Raw
from pv.vecstore.tensors.formats import FLOATS, all_finite, to_f32
from pv.vecstore.vectors.base import BaseTensor
from pv.vecstore.vectors.encodings import decode
from pv.vecstore.vectors.pieces import PIECE, Pieces

__all__ = ["NO_ID", "BaseItself", "FolderBase", "FolderVector", "Trimmed", "read_finite", "unread"]

NO_ID = "0" * 64
"""Of the base that nobody has hashed."""
_CHECKED = 1 << 16  # elements looked at at a time: they stay in the cache


def unread(specs: Mapping[str, Spec], path: str, *, apart: bool = False) -> BaseManifest:
    """The manifest of a base whose weights nobody has read: without ids; or with some that tell tensors `apart`."""
    rows = {name: TensorRow(spec.dtype, spec.shape, name if apart else "") for name, spec in specs.items()}
    return BaseManifest(rows, {"kind": "path", "path": path})


def read_finite(weights: Weights, model: str, name: str, start: int = 0, stop: int | None = None) -> Raw:
    """Elements start to stop of a tensor. Raises IntegrityError if one is infinite or not a number."""
    raw, dtype = read_raw(weights, name, start, stop), weights.specs[name].dtype
    for low in range(0, len(raw), _CHECKED):
        if not all_finite(raw[low : low + _CHECKED], dtype):
            raise IntegrityError(
                f"{model}: tensor {name!r} holds NaN or infinity",
                hint="leave the model out, or train it again: merging would spread them",
            )
    return raw


class Read:
    """A model's tensor in the base's place, read piece by piece."""

    whole = True

    def __init__(self, weights: Weights, model: str, name: str) -> None:
        self._weights, self._model, self._name = weights, model, name
        self.dtype, self._at = weights.specs[name].dtype, 0

    def next(self, own: Raw) -> Raw:
        start, self._at = self._at, self._at + len(own)
        return read_finite(self._weights, self._model, self._name, start, self._at)


@dataclass(frozen=True, slots=True)
class FolderBase:
    """`model` is what the document calls it."""

    model: str
    manifest: BaseManifest
    checkpoint: Checkpoint

    @property
    def light(self) -> bool:
        return True

    def tensor(self, name: str) -> BaseTensor:
        return BaseTensor(name, self.manifest.tensors[name], read_finite(self.checkpoint, self.model, name))

    def pieces(self, name: str, step: int = PIECE) -> Iterator[Raw]:
        size = self.manifest.tensors[name].numel
        for start in range(0, max(size, 1), step):
            yield read_finite(self.checkpoint, self.model, name, start, min(start + step, size))


@dataclass(frozen=True, slots=True)
class FolderVector:
    """A model, seen through the base's eyes (`aligned`), less the base."""

    model: str
    id: str
    manifest: VectorManifest
    base: FolderBase
    aligned: Aligned

    @staticmethod
    def of(model: str, vector_id: str, base: FolderBase, aligned: Aligned) -> FolderVector:
        rows = {
            name: {"ft": TensorRow(spec.dtype, spec.shape, "")}
            for name, spec in aligned.specs.items()
            if base.manifest.tensors[name].dtype in FLOATS
        }
        return FolderVector(model, vector_id, VectorManifest(NO_ID, "exact", rows), base, aligned)

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        own = base or self.base.tensor(name)
        row, raw = self.manifest.tensors[name]["ft"], read_finite(self.aligned, self.model, name)
        return decode("exact", {"ft": Array(row.dtype, row.shape, raw)}, lambda: own.f32, own.row.shape)

    def pieces(self, name: str) -> Pieces:
        return Read(self.aligned, self.model, name)

    def needs_base(self, name: str) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Trimmed:
    """A vector of which each tensor is trimmed to a density of its own, as the method would with one for all."""

    vector: FolderVector
    density: Mapping[str, float]

    @property
    def id(self) -> str:
        return self.vector.id

    @property
    def manifest(self) -> VectorManifest:
        return self.vector.manifest

    @property
    def base(self) -> FolderBase:
        return self.vector.base

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        own = base or self.base.tensor(name)
        return Kept(self, name).next(own.raw)

    def pieces(self, name: str) -> Pieces:
        return Kept(self, name)

    def needs_base(self, name: str) -> bool:
        return False


class Kept:
    """What the trim leaves of a tensor, piece by piece; it is looked at before the first."""

    dtype, whole = "F32", False

    def __init__(self, trimmed: Trimmed, name: str) -> None:
        vector = trimmed.vector
        columns = Columns(vector.base, name, (Operand(1.0, ((1.0, vector.id),)),), {vector.id: vector})
        k = max(1, int(trimmed.density[name] * columns.size))
        (self._trim,) = largest(columns, [(k, taken(Voice(1.0, "", 0)))])
        self._dtype, self._reader, self._at = columns.row.dtype, vector.pieces(name), 0

    def next(self, own: Raw) -> F32:
        start, self._at = self._at, self._at + len(own)
        tau = to_f32(self._reader.next(own), self._reader.dtype) - to_f32(own, self._dtype)
        return np.where(self._trim.keeps(tau, start), tau, np.float32(0))


class Itself:
    """The base's own elements, or as many zeros."""

    whole = False

    def __init__(self, dtype: str, times: int) -> None:
        self.dtype, self._times = dtype, times

    def next(self, own: Raw) -> Raw:
        return own if self._times else np.zeros_like(own)


@dataclass(frozen=True, slots=True)
class BaseItself:
    """The base as a vector: 0 times it is its own difference as one of the models.

    Once it is what a weighted sum of whole models adds, where the weights do not sum to 1.
    """

    id: str
    manifest: VectorManifest
    base: FolderBase
    times: int

    @staticmethod
    def of(vector_id: str, base: FolderBase, *, times: int) -> BaseItself:
        rows = {name: {"ft": row} for name, row in base.manifest.tensors.items() if row.dtype in FLOATS}
        return BaseItself(vector_id, VectorManifest(NO_ID, "exact", rows), base, times)

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        f32 = (base or self.base.tensor(name)).f32
        return f32.copy() if self.times else np.zeros_like(f32)

    def pieces(self, name: str) -> Pieces:
        return Itself(self.manifest.tensors[name]["ft"].dtype, self.times)

    def needs_base(self, name: str) -> bool:
        return False
