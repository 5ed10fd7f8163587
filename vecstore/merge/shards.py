"""The weight files of a build: which tensors go into which.

Shard size moves tensors between files and changes none. `weight_file` writes one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from pv.registry import ids
from pv.registry.disk.safetensors import header_bytes
from pv.registry.dtypes import OUTPUTS
from pv.registry.errors import UsageError
from pv.registry.manifest import BaseManifest, Spec
from pv.registry.persona import Persona
from pv.vecstore.merge.baked import NOTHING, Baked
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["SHARD_BYTES", "Shard", "index_bytes", "into_many", "into_shards", "plan_id", "plan_shards"]

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Shard:
    """One weight file to be: its name, and its tensors in file order."""

    file: str
    tensors: Mapping[str, Spec]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors.values())

    @property
    def head(self) -> bytes:
        """What the file begins with."""
        sizes = {name: (spec.dtype, spec.shape, spec.nbytes) for name, spec in self.tensors.items()}
        return header_bytes(sizes, {"format": "pt"})  # loaders insist on this word


def plan_shards(
    persona: Persona,
    base: BaseManifest,
    *,
    shard_bytes: int = SHARD_BYTES,
    count: int | None = None,
    baked: Baked = NOTHING,
) -> tuple[Shard, ...]:
    """The files that a persona's build goes into: `count` of them, or as many as their size makes it."""
    specs = {n: _as_written(persona, row) for n, row in base.tensors.items()}
    specs.update(baked.added(specs))
    return into_shards(specs, shard_bytes) if count is None else into_many(specs, count)


def into_shards(specs: Mapping[str, Spec], shard_bytes: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """Which tensors go into which file. Greedy in name order, as loaders expect."""
    groups: list[dict[str, Spec]] = [{}]
    room = shard_bytes
    for name, spec in sorted(specs.items()):
        if groups[-1] and spec.nbytes > room:
            groups.append({})
            room = shard_bytes
        groups[-1][name] = spec
        room -= spec.nbytes
    return _named(groups)


def into_many(specs: Mapping[str, Spec], count: int) -> tuple[Shard, ...]:
    """`count` files of about the same size, in name order: who is given the same gets the same.

    Raises UsageError if there are fewer tensors.
    """
    if not 1 <= count <= len(specs):
        raise UsageError(
            f"{len(specs)} tensors cannot be written in {count} shards",
            hint=f"each holds one at least: --shards 1/{len(specs)} is the most",
        )
    total = sum(spec.nbytes for spec in specs.values())
    groups: list[dict[str, Spec]] = [{}]
    behind = 0  # bytes in the groups so far
    for number, (name, spec) in enumerate(sorted(specs.items())):
        room, needed = count - len(groups), len(specs) - number
        full = (2 * behind + spec.nbytes) * count > 2 * total * len(groups)  # most of it lies beyond the end
        if groups[-1] and room and (full or needed == room):
            groups.append({})
        groups[-1][name] = spec
        behind += spec.nbytes
    return _named(groups)


def _named(groups: list[dict[str, Spec]]) -> tuple[Shard, ...]:
    if len(groups) == 1:
        return (Shard("model.safetensors", groups[0]),)
    return tuple(
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", group)
        for number, group in enumerate(groups, 1)
    )


def _as_written(persona: Persona, own: Spec) -> Spec:
    """The base's own dtype, unless the persona asks for another float; integers are never touched."""
    if persona.output.dtype == "base" or own.dtype not in FLOATS:
        return Spec(own.dtype, own.shape)
    return Spec(OUTPUTS[persona.output.dtype].name, own.shape)


def plan_id(what: str, shards: tuple[Shard, ...]) -> str:
    """Under which unfinished work on these files is kept; `what` they hold is a build's id, say."""
    files = [
        [shard.file, [[name, spec.dtype, list(spec.shape)] for name, spec in shard.tensors.items()]]
        for shard in shards
    ]
    return ids.plan_id(what, files)


def index_bytes(shards: tuple[Shard, ...]) -> bytes:
    """model.safetensors.index.json"""
    where = {name: shard.file for shard in shards for name in shard.tensors}
    total = sum(shard.nbytes for shard in shards)
    document = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
