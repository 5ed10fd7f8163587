"""A task vector at hand: tau of each tensor it touches, decoded from its pack against its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from pv.registry.errors import (
    BaseMismatch,
    CheckpointRefused,
    CorruptPack,
    FormatError,
    NotFoundError,
    UsageError,
)
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.align import Fitted, fit
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Spec
from pv.vecstore.checkpoints.fingerprint import Progress, row_of
from pv.vecstore.packs.codecs.layout import LAYOUTS, Raw
from pv.vecstore.packs.pack import Pack, Part, Reference
from pv.vecstore.tensors.array import F32
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encodings import Array, by_name, check, decode, noted
from pv.vecstore.vectors.spool import store

__all__ = ["Vector", "capture", "keep", "open_vector"]


@dataclass(frozen=True, slots=True)
class Vector(AbstractContextManager["Vector"]):
    manifest: VectorManifest
    pack: Pack
    base: Base

    @property
    def id(self) -> str:
        return self.manifest.id

    def tau(self, name: str) -> F32:
        """tau of one tensor, flat float32.

        Raises CorruptPack if its stored parts are damaged, BaseMismatch if the base they need is.
        """
        own, rows = self.base.manifest.tensors[name], self.manifest.tensors[name]
        try:
            check(self.manifest.encoding, rows, own.shape)  # before memory is taken for them
        except FormatError as error:
            raise CorruptPack(f"vector {self.id[:12]}: tensor {name!r}: {error}", hint=error.hint) from error
        reference = reference_to(self.base, name, rows)
        try:
            parts = {
                part: Array(row.dtype, row.shape, self.pack.read(name, part, reference))
                for part, row in rows.items()
            }
        except CorruptPack:
            if reference is not None:
                self.base.verified(name)  # a changed base looks like a damaged pack: say which it is
            raise
        return decode(self.manifest.encoding, parts, lambda: self.base.f32(name), own.shape)

    def close(self) -> None:
        self.pack.close()

    def __exit__(self, *_: object) -> None:
        self.close()


def open_vector(vector_id: str, base: Base, packs: PackStore) -> Vector:
    """Raises NotFoundError without a pack, BaseMismatch for a vector of another base."""
    if not packs.has(vector_id):
        raise NotFoundError(
            f"vector {vector_id[:12]} is not in this registry's packs", hint="`pv fsck` says what is affected"
        )
    pack = Pack(packs.path(vector_id), expect=vector_id)
    manifest = pack.manifest
    if not isinstance(manifest, VectorManifest):
        pack.close()
        raise CorruptPack(f"{pack.path} is not a vector")
    if manifest.base != base.manifest.id:
        pack.close()
        raise BaseMismatch(
            f"vector {vector_id[:12]} was measured from base {manifest.base[:12]}, this is {base.manifest.id[:12]}",
            hint="a vector means nothing on another base: train the behaviour again on this one",
        )
    unknown = manifest.tensors.keys() - base.manifest.tensors.keys()
    if unknown:
        pack.close()
        raise BaseMismatch(
            f"vector {vector_id[:12]} has tensors that its base lacks, such as {min(unknown)!r}"
        )
    return Vector(manifest, pack, base)


def reference_to(base: Base, name: str, rows: Mapping[str, TensorRow]) -> Reference | None:
    """What an `exact` part is packed against: the base's elements, converted if the part is another float.

    A trainer that saved fp32 moved few of its elements far from the bf16 base: those differences are small too.
    """
    ft, own = rows.get("ft"), base.manifest.tensors[name]
    if ft is None or ft.shape != own.shape:
        return None
    if ft.dtype == own.dtype:
        return lambda start, stop: base.raw(name, start, stop)
    if not {ft.dtype, own.dtype} <= FLOATS:
        return None
    target = ft.dtype

    def converted(start: int, stop: int) -> Raw:
        values = to_f32(base.raw(name, start, stop), own.dtype)
        return round_to(values, target, "nearest", seed=0, name="", start=0)

    return converted


def capture(
    checkpoint: Checkpoint,
    base: Base,
    packs: PackStore,
    *,
    smallest: bool = False,
    strange: Callable[[str], None] | None = None,
    threads: int = 2,
    progress: Progress | None = None,
) -> VectorManifest:
    """Keep a fine-tuned checkpoint bit for bit, as an `exact` vector; returns its manifest.

    Frozen tensors are left out; `strange` is told of one with numbers that are not finite. Raises
    CheckpointRefused for a checkpoint that does not fit the base, UsageError for one that equals it.
    """
    fitted = fit(checkpoint, base.manifest)
    names = sorted(fitted.specs)
    total = 2 * sum(_nbytes(fitted.specs[name]) for name in names)
    counter = _Counter(total, progress)

    changed: list[str] = []
    for name, row in zip(
        names, ordered_map(lambda n: row_of(fitted, n), names, threads=threads), strict=True
    ):
        if row != base.manifest.tensors[name]:
            changed.append(name)
        else:
            counter.add(row.nbytes)
        counter.add(row.nbytes)
    if not changed:
        raise UsageError(f"{checkpoint.path} is the base itself: there is nothing to commit")
    _check_floats(changed, fitted, base.manifest)
    for _ in ordered_map(base.verified, changed, threads=1):
        pass  # a delta against wrong bytes could not be decoded again

    odd: set[str] = set()
    parts = [_exact_part(fitted, base, name, odd.add) for name in changed]
    made = store(
        parts, base.manifest.id, "exact", packs, smallest=smallest, threads=threads, progress=counter.add
    )
    if strange:
        for name in sorted(odd):
            strange(name)
    return made


def _exact_part(fitted: Fitted, base: Base, name: str, odd: Callable[[str], None]) -> Part:
    spec = fitted.specs[name]
    layout = LAYOUTS[spec.dtype]

    def read(start: int, stop: int) -> Raw:
        raw = np.frombuffer(
            fitted.read(name, start * layout.itemsize, stop * layout.itemsize), layout.storage
        )
        if not layout.all_finite(raw):
            odd(name)
        return raw

    row = TensorRow(spec.dtype, spec.shape, "0" * 64)
    return Part(name, "ft", spec.dtype, spec.shape, read, reference_to(base, name, {"ft": row}))


def keep(
    deltas: Mapping[str, F32],
    base: BaseManifest,
    packs: PackStore,
    *,
    encoding: str = "int8",
    options: Mapping[str, Any] = MappingProxyType({}),
    threads: int = 2,
    progress: Progress | None = None,
) -> VectorManifest:
    """Keep deltas {tensor name: float32 tau} in an encoding; returns the manifest of the vector."""
    encoder = by_name(encoding)
    parts: list[Part] = []
    for name in sorted(deltas):
        shape = base.tensors[name].shape
        for part, array in encoder.encode(deltas[name].reshape(-1), shape, **options).items():
            parts.append(Part(name, part, array.dtype, array.shape, _slicer(array.raw)))
    total = sum(p.numel * LAYOUTS[p.dtype].itemsize for p in parts)
    counter = _Counter(total, progress)
    return store(
        parts,
        base.id,
        encoding,
        packs,
        options=noted(options),
        threads=threads,
        progress=counter.add,
    )


def _slicer(raw: Raw) -> Callable[[int, int], Raw]:
    return lambda start, stop: raw[start:stop]


def _check_floats(changed: list[str], checkpoint: Fitted, base: BaseManifest) -> None:
    stuck = [name for name in changed if base.tensors[name].dtype not in FLOATS]
    if stuck:
        named = ", ".join(f"{name!r} ({base.tensors[name].dtype})" for name in stuck[:5])
        raise CheckpointRefused(
            f"{checkpoint.path} changes {named}: a vector moves {', '.join(sorted(FLOATS))} tensors only",
            hint="put the base's own tensor there, if the change does not matter",
        )


def _nbytes(spec: Spec) -> int:
    return spec.numel * LAYOUTS[spec.dtype].itemsize


class _Counter:
    def __init__(self, total: int, progress: Progress | None) -> None:
        self.done, self.total, self.progress = 0, total, progress

    def add(self, count: int) -> None:
        self.done += count
        if self.progress:
            self.progress(self.done, self.total)
