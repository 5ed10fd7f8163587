"""The weight files of a build: which tensors go into which, and how one is written.

Shard size moves tensors between files and changes none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pv.registry.disk import durable
from pv.registry.disk.safetensors import header_bytes
from pv.registry.dtypes import OUTPUTS
from pv.registry.manifest import BaseManifest, Spec
from pv.registry.persona import Persona
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["SHARD_BYTES", "Shard", "index_bytes", "into_shards", "plan_shards", "write_shard"]

SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Shard:
    """One weight file to be: its name, and its tensors in file order."""

    file: str
    tensors: Mapping[str, Spec]

    @property
    def nbytes(self) -> int:
        return sum(spec.nbytes for spec in self.tensors.values())


def plan_shards(persona: Persona, base: BaseManifest, *, shard_bytes: int = SHARD_BYTES) -> tuple[Shard, ...]:
    """The files that a persona's build goes into."""
    return into_shards({n: _as_written(persona, row) for n, row in base.tensors.items()}, shard_bytes)


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


@contextmanager
def write_shard(
    path: Path, shard: Shard, sums: dict[str, str]
) -> Iterator[Callable[[memoryview | bytes], None]]:
    """Yields a function that appends a tensor's bytes; afterwards `sums` has the file's SHA-256."""
    digest = hashlib.sha256()
    with path.open("xb") as file:

        def write(data: memoryview | bytes) -> None:
            file.write(data)
            digest.update(data)

        header = {name: (spec.dtype, spec.shape, spec.nbytes) for name, spec in shard.tensors.items()}
        write(header_bytes(header, {"format": "pt"}))  # loaders insist on this word
        yield write
        file.flush()
        durable.fsync_file(file.fileno())
    sums[path.name] = digest.hexdigest()


def index_bytes(shards: tuple[Shard, ...]) -> bytes:
    """model.safetensors.index.json"""
    where = {name: shard.file for shard in shards for name in shard.tensors}
    total = sum(shard.nbytes for shard in shards)
    document = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
