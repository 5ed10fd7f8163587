"""A vector in another encoding: a vector of its own, with its own id and a measured error.

tau is decoded, encoded anew, and decoded once more to see what is left of it: the error is never estimated.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pv.registry.errors import IntegrityError, UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.packs.store import PackStore
from pv.vecstore.packs.write import Part
from pv.vecstore.progress import Progress
from pv.vecstore.tensors.arithmetic import BLOCK
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.tensors.parallel import ordered_map
from pv.vecstore.vectors.base import Base
from pv.vecstore.vectors.encode import write_vector
from pv.vecstore.vectors.encodings import ALL, MADE, by_name, decode, noted
from pv.vecstore.vectors.spool import Spool
from pv.vecstore.vectors.vector import Vector

__all__ = ["LADDER", "Derived", "EncodingSpec", "Error", "derive", "encode_all"]

LADDER = (
    "float",
    "int8",
    "lowrank:256",
    "lowrank:64",
    "ternary",
    "sparse:0.1",
    "lowrank:16",
    "sparse:0.02",
    "lowrank:4",
)
"""What a search for the smallest encoding tries, when nothing else is asked for."""

CLOSE = 1.2  # two ranks or shares whose sizes are hardly worth telling apart


@dataclass(frozen=True, slots=True)
class EncodingSpec:
    """An encoding and what is asked of it, as a person types it: `lowrank:64`."""

    text: str
    encoding: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def parse(text: str) -> EncodingSpec:
        """Raises UsageError."""
        name, _, rest = text.partition(":")
        module = MADE.get(name)
        if module is None and name in ALL:
            raise UsageError(
                f"{name} keeps what was captured and cannot be made from something else",
                hint="lowrank:64 makes factors; `pv commit` captures a checkpoint or an adapter",
            )
        options = None if module is None else module.options(rest)
        if module is None or options is None:
            if module is not None:
                raise UsageError(
                    f"no encoding {text!r}: {module.ALLOWED}", hint=f"for example {module.EXAMPLES[0]}"
                )
            examples = ", ".join(example for made in MADE.values() for example in made.EXAMPLES)
            raise UsageError(f"no encoding {text!r}", hint=f"there are: {examples}")
        return EncodingSpec(name if options == module.options("") else text, name, options)

    def as_before(self) -> EncodingSpec:
        """The same, made as pv 0.1 made it: bytes that it lost can be made again."""
        return replace(self, options={**self.options, "sketch": False})

    def halfway(self, other: EncodingSpec) -> EncodingSpec | None:
        """Between two ranks or two shares (their geometric mean); None if there is nothing worth a try."""
        if self.encoding != other.encoding or self.options.keys() != other.options.keys():
            return None
        if len(self.options) != 1 or not all(isinstance(x, int | float) for x in self.options.values()):
            return None
        (a,), (b,) = self.options.values(), other.options.values()
        if max(a, b) <= CLOSE * min(a, b):
            return None
        middle = round(math.sqrt(a * b)) if isinstance(a, int) else float(f"{math.sqrt(a * b):.2g}")
        return EncodingSpec.parse(f"{self.encoding}:{middle:g}") if middle not in (a, b) else None


@dataclass(frozen=True, slots=True)
class Error:
    """What re-encoding did to tau: the largest change, and |tau' - tau| / |tau| over the whole vector."""

    max_abs: float
    relative_l2: float

    def to_json(self) -> dict[str, float]:
        return {"max_abs": self.max_abs, "relative_l2": self.relative_l2}


@dataclass(frozen=True, slots=True)
class Derived:
    """A new vector, whose pack is in the store that it was derived into."""

    source: str
    manifest: VectorManifest
    error: Error


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of one tensor: its new parts, the largest change, and two sums of squares."""

    name: str
    arrays: Mapping[str, Array]
    largest: float
    change: float
    size: float


def derive(
    vector: Vector,
    spec: EncodingSpec,
    packs: PackStore,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> Derived:
    """Encode `vector` anew, into `packs`. Memory is that of a few tensors.

    Raises IntegrityError for a vector with numbers that are not finite.
    """
    manifest, error = encode_all(
        sorted(vector.manifest.tensors), lambda name: _tau(vector, name), vector.base, spec, packs,
        threads=threads, progress=progress,
    )  # fmt: skip
    return Derived(vector.id, manifest, error)


def encode_all(
    names: Sequence[str],
    tau: Callable[[str], F32],
    base: Base,
    spec: EncodingSpec,
    packs: PackStore,
    *,
    arrays: Callable[[str], Mapping[str, Array] | None] = lambda _: None,
    threads: int = 2,
    progress: Progress | None = None,
) -> tuple[VectorManifest, Error]:
    """A vector of these tensors, `tau` of each made when it is encoded, and what encoding did to it.

    `arrays` may have the encoded parts of a tensor already, once its tau was made.

    Memory is that of a few tensors. Progress is in elements.
    """
    rows = base.manifest.tensors
    total, done = sum(rows[name].numel for name in names), 0
    parts: list[Part] = []
    largest = change = size = 0.0
    with Spool(packs.tmp) as spool:
        for sums in ordered_map(
            lambda name: _encoded(name, tau(name), base, spec, arrays(name)), names, threads=threads
        ):
            parts += [spool.part(sums.name, part, array) for part, array in sums.arrays.items()]
            largest = max(largest, sums.largest)
            change += sums.change
            size += sums.size
            done += rows[sums.name].numel
            if progress:
                progress(done, total)
        manifest = write_vector(
            parts, base.manifest.id, spec.encoding, packs, options=noted(spec.options), threads=threads
        )
    return manifest, Error(largest, math.sqrt(change / size) if size else 0.0)


def _tau(vector: Vector, name: str) -> F32:
    tau = vector.tau(name)
    if not np.isfinite(tau).all():
        raise IntegrityError(
            f"vector {vector.id[:12]} holds infinite or undefined numbers in {name!r}",
            hint="train or capture it again: it cannot be encoded",
        )
    return tau


def _encoded(
    name: str, tau: F32, base: Base, spec: EncodingSpec, arrays: Mapping[str, Array] | None = None
) -> _Sums:
    shape = base.manifest.tensors[name].shape
    if arrays is None:
        arrays = by_name(spec.encoding).encode(tau, shape, **spec.options)
    back = decode(spec.encoding, arrays, lambda: base.tensor(name).f32, shape)
    return _Sums(name, arrays, *_apart(tau, back))


def _apart(tau: F32, back: F32) -> tuple[float, float, float]:
    """The largest change, and the sums of squares of the change and of tau, in fp64."""
    largest = change = size = 0.0
    wide, apart = np.empty((2, min(BLOCK, tau.size)))
    for low in range(0, tau.size, BLOCK):  # a block stays in the cache
        part, moved = wide[: tau.size - low], apart[: tau.size - low]
        part[:], moved[:] = tau[low : low + BLOCK], back[low : low + BLOCK]
        moved -= part
        largest = max(largest, float(moved.max()), -float(moved.min()))
        change += float(np.dot(moved, moved))
        size += float(np.dot(part, part))
    return largest, change, size
