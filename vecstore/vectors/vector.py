"""A task vector at hand: tau of each tensor it touches, decoded from its pack against its base."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pv.registry.disk.closing import Closing
from pv.registry.errors import BaseMismatch, CorruptPack, FormatError, NotFoundError, UsageError
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.read import Pack, Reference
from pv.vecstore.tensors.array import F32, Array, Raw
from pv.vecstore.tensors.formats import FLOATS, to_f32
from pv.vecstore.tensors.rounding import round_to
from pv.vecstore.vectors.base import Base, BaseTensor
from pv.vecstore.vectors.encodings import check, decode, expand, factored, is_factored
from pv.vecstore.vectors.pieces import Expanded, Pieces, Scaled, Streamed

__all__ = ["Vector", "open_vector", "reference_to"]


@dataclass(frozen=True, slots=True)
class Vector(Closing):
    manifest: VectorManifest
    pack: Pack
    base: Base

    @property
    def id(self) -> str:
        return self.manifest.id

    def tau(self, name: str, base: BaseTensor | None = None) -> F32:
        """tau of one tensor, flat float32. `base` is the base's tensor, where the caller has read it already.

        Raises CorruptPack if its stored parts are damaged, BaseMismatch if the base they need is.
        """
        if base is None and self.needs_base(name):
            base = self.base.tensor(name)
        parts, shape = self._parts(name, base), self.base.manifest.tensors[name].shape
        return decode(self.manifest.encoding, parts, lambda: (base or self.base.tensor(name)).f32, shape)

    def pieces(self, name: str) -> Pieces:
        """The tensor's delta, or the tensor that takes the base's place, piece by piece. Raises as `tau`."""
        own, rows = self.base.manifest.tensors[name], self.manifest.tensors[name]
        self._check(name)
        if "q" in rows:
            scale = self.pack.read(name, "scale").view("<f4")
            return Scaled(self._streamed(name, "q"), scale, own.numel // max(1, len(scale)))
        part = next((part for part in ("ft", "tau") if rows.keys() == {part}), None)
        if part is not None:
            return self._streamed(name, part)
        return Expanded(expand(self.manifest.encoding, self._parts(name, None), own.shape))

    def _streamed(self, name: str, part: str) -> Streamed:
        own, rows = self.base.manifest.tensors[name], self.manifest.tensors[name]
        return Streamed(
            self.pack,
            name,
            part,
            rows[part],
            whole=part == "ft",
            reference=lambda read: reference_to(own, rows, read),
        )

    def is_factored(self, name: str) -> bool:
        """Whether a tensor is kept as low-rank factors."""
        return is_factored(self.manifest.encoding, self.manifest.tensors[name])

    def factored(self, name: str) -> tuple[Array, Array, float]:
        """Those factors, (rows, rank) and (rank, columns), and the scale of their product. Raises CorruptPack."""
        return factored(self.manifest.encoding, self._parts(name, None))

    def kept(self, name: str, base: BaseTensor) -> tuple[TensorRow, Raw]:
        """The tensor that takes the base's place, bit for bit, where the vector keeps it so. Raises as `tau`."""
        return self.manifest.tensors[name]["ft"], self._parts(name, base)["ft"].raw

    def _parts(self, name: str, base: BaseTensor | None) -> dict[str, Array]:
        own, rows = self.base.manifest.tensors[name], self.manifest.tensors[name]
        self._check(name)
        reference = None if base is None else reference_to(own, rows, slicer(base.raw))
        return {
            part: Array(row.dtype, row.shape, self.pack.read(name, part, reference))
            for part, row in rows.items()
        }

    def _check(self, name: str) -> None:
        """Before memory is taken for a tensor's parts."""
        rows, shape = self.manifest.tensors[name], self.base.manifest.tensors[name].shape
        try:
            check(self.manifest.encoding, rows, shape)
        except FormatError as error:
            raise CorruptPack(f"vector {self.id[:12]}: tensor {name!r}: {error}", hint=error.hint) from error

    def needs_base(self, name: str) -> bool:
        """Whether tau of this tensor is kept as the tensor that takes the base's place."""
        return "ft" in self.manifest.tensors[name]

    def close(self) -> None:
        self.pack.close()


def open_vector(vector_id: str, base: Base, packs: PackStore) -> Vector:
    """Raises NotFoundError without a pack, BaseMismatch for another base's vector, UsageError for a steering vector."""
    if not packs.has(vector_id):
        raise NotFoundError(
            f"vector {vector_id[:12]} is not in this registry's packs", hint="`pv fsck` says what is affected"
        )
    pack = Pack(packs.path(vector_id), expect=vector_id)
    manifest = pack.manifest
    if not isinstance(manifest, VectorManifest):
        pack.close()
        raise CorruptPack(f"{pack.path} is not a vector")
    if manifest.is_steering:
        pack.close()
        raise UsageError(
            f"vector {vector_id[:12]} is a steering vector: it steers activations, it changes no weight",
            hint="`pv steer list` shows it",
        )
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


def reference_to(
    own: TensorRow, rows: Mapping[str, TensorRow], read: Callable[[int, int], Raw]
) -> Reference | None:
    """What an `exact` part is packed against: the base's elements, converted if the part is another float.

    `own` is the base's tensor and `read` gives its elements. A trainer that saved fp32 moved few of its
    elements far from the bf16 base: those differences are small too.
    """
    ft = rows.get("ft")
    if ft is None or ft.shape != own.shape:
        return None
    if ft.dtype == own.dtype:
        return read
    if not {ft.dtype, own.dtype} <= FLOATS:
        return None
    target = ft.dtype

    def converted(start: int, stop: int) -> Raw:
        return round_to(to_f32(read(start, stop), own.dtype), target, "nearest", seed=0, name="", start=0)

    return converted


def slicer(raw: Raw) -> Callable[[int, int], Raw]:
    """Elements start to stop of an array that is at hand."""
    return lambda start, stop: raw[start:stop]
