"""The weight files of a build: which tensors go into which, and how one is written.

Shard size moves tensors between files and changes none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from pv.registry.disk import durable
from pv.registry.disk.closing import Closing
from pv.registry.disk.safetensors import header_bytes
from pv.registry.dtypes import OUTPUTS
from pv.registry.manifest import BaseManifest, Spec
from pv.registry.persona import Persona
from pv.vecstore.tensors.formats import FLOATS

__all__ = ["SHARD_BYTES", "Shard", "ShardFile", "index_bytes", "into_shards", "plan_shards"]

SHARD_BYTES = 5_000_000_000
PIECE_BYTES = 1 << 20


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


class ShardFile(Closing):
    """A weight file that is being written: any tensor at any time, each at its place."""

    def __init__(self, path: Path, shard: Shard) -> None:
        self.path, self.shard = path, shard
        head = header_bytes(
            {name: (spec.dtype, spec.shape, spec.nbytes) for name, spec in shard.tensors.items()},
            {"format": "pt"},  # loaders insist on this word
        )
        sizes = [spec.nbytes for spec in shard.tensors.values()]
        places = accumulate(sizes, initial=len(head))
        self._place = dict(zip(shard.tensors, places, strict=False))
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        self._digest, self._hashed = hashlib.sha256(), 0
        _write_all(self._fd, memoryview(head), 0)

    def writer(self, name: str) -> Callable[[memoryview], None]:
        """A function that appends bytes to one tensor; several may be at work."""
        at = self._place[name]

        def write(data: memoryview) -> None:
            nonlocal at
            _write_all(self._fd, data, at)
            at += len(data)

        return write

    def passed(self, name: str) -> None:
        """All up to the end of this tensor is written: it is hashed, while it is still in memory."""
        end = self._place[name] + self.shard.tensors[name].nbytes
        piece = bytearray(min(PIECE_BYTES, end - self._hashed))
        while self._hashed < end:
            view = memoryview(piece)[: end - self._hashed]
            got = os.preadv(self._fd, [view], self._hashed)
            self._digest.update(view[:got])
            self._hashed += got

    def finish(self) -> str:
        """Sync; the file's SHA-256."""
        durable.fsync_file(self._fd)
        return self._digest.hexdigest()

    def close(self) -> None:
        os.close(self._fd)


def _write_all(fd: int, data: memoryview, at: int) -> None:
    while len(data):
        written = os.pwrite(fd, data, at)
        data, at = data[written:], at + written


def index_bytes(shards: tuple[Shard, ...]) -> bytes:
    """model.safetensors.index.json"""
    where = {name: shard.file for shard in shards for name in shard.tensors}
    total = sum(shard.nbytes for shard in shards)
    document = {"metadata": {"total_size": total}, "weight_map": where}
    return json.dumps(document, indent=2, sort_keys=True).encode() + b"\n"
