"""A base's copy in the registry: written once, read where the original is gone or has changed."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from threading import Lock

import numpy as np

from pv.registry import ids
from pv.registry.dtypes import DTYPES
from pv.registry.errors import BaseMismatch, CorruptPack
from pv.registry.manifest import BaseManifest, Spec
from pv.registry.packs.store import PackStore
from pv.vecstore.checkpoints.checkpoint import Checkpoint, Weights, read_raw
from pv.vecstore.checkpoints.fingerprint import row_of
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.packs.read import Pack
from pv.vecstore.packs.write import Part, write_pack
from pv.vecstore.progress import Progress, counted
from pv.vecstore.tensors.array import Raw

__all__ = ["Pinned", "Spared", "pin"]


def pin(
    weights: Weights,
    manifest: BaseManifest,
    packs: PackStore,
    *,
    threads: int = 2,
    progress: Progress | None = None,
) -> None:
    """Keep a copy of the base in the registry, so that it cannot get lost. Raises BaseMismatch."""
    parts = [
        Part(name, "w", row.dtype, row.shape, partial(read_raw, weights, name))
        for name, row in manifest.tensors.items()
    ]
    with packs.writer() as out:
        made = write_pack(
            out.file,
            parts,
            lambda rows: BaseManifest(
                {name: row for (name, _), row in rows.items()},
                manifest.origin,
                manifest.files,
                manifest.pinned,
            ),
            threads=threads,
            progress=counted(progress, sum(row.nbytes for row in manifest.tensors.values())),
        )
        if made.id != manifest.id:
            raise BaseMismatch("the base changed while it was being pinned", hint="run the command again")
        out.commit(manifest.id)


class Pinned:
    """A base read out of its pack, in pieces."""

    def __init__(self, path: Path, base_id: str) -> None:
        self.pack = Pack(path, expect=base_id)
        self.close = self.pack.close
        assert isinstance(self.pack.manifest, BaseManifest)
        self.specs = {name: Spec(row.dtype, row.shape) for name, row in self.pack.manifest.tensors.items()}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        spec = self.specs[name]
        size = DTYPES[spec.dtype].itemsize
        end = spec.numel * size if stop is None else stop
        if start >= end:
            return memoryview(b"")
        first, last = start // size // chunks.CHUNK, (end - 1) // size // chunks.CHUNK
        pieces = [self.pack.chunk(name, "w", number) for number in range(first, last + 1)]
        whole = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        offset = first * chunks.CHUNK * size
        return memoryview(whole.view(np.uint8).data)[start - offset : end - offset]


class Spared:
    """A base at its origin, with its pinned copy: of a tensor that has changed at the origin, the copy is read."""

    def __init__(self, manifest: BaseManifest, checkpoint: Checkpoint, pinned: Path) -> None:
        self.checkpoint, self.specs = checkpoint, checkpoint.specs
        self._manifest, self._path = manifest, pinned
        self._pinned: Pinned | None = None
        self._sources: dict[str, Weights] = {}
        self._opening = Lock()
        self._hashing = {name: Lock() for name in self.specs}

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """The origin's bytes if they were right when the tensor was first asked for. Raises BaseMismatch."""
        with self._hashing[name]:
            if name not in self._sources:
                same = row_of(self.checkpoint, name) == self._manifest.tensors[name]
                self._sources[name] = self.checkpoint if same else self._copy(name)
        return self._sources[name].read(name, start, stop)

    def whole(self, name: str) -> Raw:
        """A whole tensor: from the origin if these very bytes are right. Raises BaseMismatch."""
        row = self._manifest.tensors[name]
        raw = read_raw(self.checkpoint, name)
        if ids.tensor_id(row.dtype, row.shape, raw.data) == row.id:
            return raw
        return read_raw(self._copy(name), name)

    def _copy(self, name: str) -> Weights:
        try:
            with self._opening:
                if self._pinned is None:
                    self._pinned = Pinned(self._path, self._manifest.id)
            for _ in self._pinned.pack.stream(name, "w"):
                pass  # which ends with comparing its id
        except CorruptPack as error:
            raise BaseMismatch(
                f"the base on disk has changed: tensor {name!r} is not what base {self._manifest.id[:12]} holds, "
                "and the copy of it in the registry is damaged",
                hint=f"put back what was at {self.checkpoint.path}, and run `pv fsck --repair`",
            ) from error
        return self._pinned

    def close(self) -> None:
        self.checkpoint.close()
        if self._pinned is not None:
            self._pinned.close()
