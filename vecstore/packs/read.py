"""Reading a pack: one file a vector or a pinned base, a valid safetensors file of packed chunks.

    __metadata__.pv      canonical JSON {"pack": 1, "manifest": ..., "parts": [[name, part, [chunk bytes]]]}
    __metadata__.sha256  of: the 8 length bytes and the header with these 64 digits as zeros, then the
                         SHA-256 of all data after the header
    tensors "0", "1"...  U8: the chunks of each part, in the order of "parts"

Reading a part always ends with comparing its id: what comes out is right or an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path

import numpy as np

from pv.registry import ids
from pv.registry.disk.closing import Closing
from pv.registry.disk.safetensors import TensorFile
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CorruptPack, FormatError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.packs import packfile
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.tensors.array import Raw

__all__ = ["Manifest", "Pack", "Reference", "swollen"]

Manifest = BaseManifest | VectorManifest
BELIEVED = 64 << 20
LARGEST_RATIO = 1000
"""A dozen bytes can stand for 2 MiB of equal elements. What a task vector claims is held against its base; a base and
a steering vector have nothing to be held against: of their tensors only BELIEVED + LARGEST_RATIO * stored bytes are
taken on trust."""

Reference = Callable[[int, int], Raw]
"""Elements start to stop of the base tensor a part is packed against, in the part's dtype."""


def swollen(manifest: Manifest, stored: Mapping[tuple[str, str], int]) -> str | None:
    """What of a base, or of a steering vector, stands for far more bytes than it has, in words; None: nothing."""
    if isinstance(manifest, BaseManifest):
        for name, row in manifest.tensors.items():
            if row.nbytes > BELIEVED + LARGEST_RATIO * stored[name, "w"]:
                return f"tensor {name[:80]!r} has {row.nbytes} bytes, packed into {stored[name, 'w']}"
    elif manifest.is_steering:
        claimed = sum(row.nbytes for parts in manifest.tensors.values() for row in parts.values())
        if claimed > BELIEVED + LARGEST_RATIO * sum(stored.values()):
            return f"its directions have {claimed} bytes, packed into {sum(stored.values())}"
    return None


class Pack(Closing):
    """An opened pack. Opening validates the whole structure; `read` verifies what it gives."""

    def __init__(self, path: Path, *, expect: str | None = None) -> None:
        self.path = path
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(TensorFile(path))
                found = packfile.describe(self._file)
            except FormatError as error:
                raise CorruptPack(str(error), hint="run `pv fsck`") from error
            if found.manifest is None:
                raise CorruptPack(f"{path} holds training rows, not tensors", hint="run `pv fsck`")
            self.manifest, self._chunks = found.manifest, found.parts
            self._starts = {key: [0, *accumulate(sizes)] for key, (_, sizes) in found.parts.items()}
            if expect is not None and self.manifest.id != expect:
                raise CorruptPack(
                    f"{path} holds {self.manifest.id[:12]}, not {expect[:12]}", hint="run `pv fsck`"
                )
            too_large = swollen(self.manifest, {key: starts[-1] for key, starts in self._starts.items()})
            if too_large is not None:
                kind = "base" if isinstance(self.manifest, BaseManifest) else "steering vector"
                raise CorruptPack(
                    f"{path}: {too_large}: no {kind} is like that", hint="do not use this registry"
                )
            stack.pop_all()  # from here on, `close` closes it

    def read(self, name: str, part: str, reference: Reference | None = None) -> Raw:
        """A whole part as flat storage integers; its id is checked. Raises CorruptPack, KeyError."""
        row = self._row(name, part)
        try:
            whole = np.empty(row.numel, DTYPES[row.dtype].storage)
        except MemoryError as error:
            raise self._damaged(name, f"it claims {row.nbytes} bytes, more than there is memory") from error
        for start, raw in self.stream(name, part, reference):
            whole[start : start + len(raw)] = raw
        return whole

    def stream(self, name: str, part: str, reference: Reference | None = None) -> Iterator[tuple[int, Raw]]:
        """The same in pieces of CHUNK elements: (start, elements). The id is checked after the last one."""
        row = self._row(name, part)
        digest = ids.tensor_hash(row.dtype, row.shape)
        for number in range(packfile.chunk_count(row.numel)):
            raw = self.chunk(name, part, number, reference)
            digest.update(raw.data)
            yield number * chunks.CHUNK, raw
        if digest.hexdigest() != row.id:
            raise self._damaged(name, "its bytes do not hash to its id")

    def chunk(self, name: str, part: str, number: int, reference: Reference | None = None) -> Raw:
        """One chunk of a part, not checked against the id: that needs the whole."""
        row = self._row(name, part)
        index, starts = self._chunks[name, part][0], self._starts[name, part]
        start = number * chunks.CHUNK
        stop = min(start + chunks.CHUNK, row.numel)
        data = self._file.read(str(index), starts[number], starts[number + 1])
        against = None if reference is None else reference(start, stop)
        try:
            return chunks.decode(data, stop - start, row.dtype, against)
        except CorruptPack as error:
            raise self._damaged(name, str(error)) from error

    def checksum_holds(self) -> bool:
        """True if the file is, byte for byte, what was written."""
        return packfile.checksum_holds(self._file)

    def _row(self, name: str, part: str) -> TensorRow:
        if isinstance(self.manifest, VectorManifest):
            return self.manifest.tensors[name][part]
        return self.manifest.tensors[name]

    def _damaged(self, name: str, why: str) -> CorruptPack:
        return CorruptPack(
            f"{self.path}: tensor {name[:80]!r}: {why}", hint="run `pv fsck` to see what it affects"
        )

    def close(self) -> None:
        self._file.close()
