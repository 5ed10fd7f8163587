"""Writing a pack: parts in, one valid safetensors file of packed chunks out, in one pass.

The header's room is reserved before the payload is known: an upper bound, padded with spaces.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from pv.registry import ids
from pv.registry.dtypes import DTYPES
from pv.registry.errors import CheckpointRefused, FormatError
from pv.registry.manifest import TensorRow, VectorManifest
from pv.registry.packs import packfile
from pv.registry.packs.packfile import ZEROS
from pv.vecstore.packs.codecs import chunks
from pv.vecstore.packs.read import Manifest, Reference, swollen
from pv.vecstore.progress import Added
from pv.vecstore.tensors.array import Raw
from pv.vecstore.tensors.parallel import ordered_map

__all__ = ["Part", "write_pack"]


@dataclass(frozen=True, slots=True)
class Part:
    """A part to be packed: where it belongs, what it is, and how to read its elements start to stop."""

    name: str
    part: str
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[int, int], Raw]
    reference: Reference | None = None

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * DTYPES[self.dtype].itemsize


def write_pack(
    file: IO[bytes],
    parts: Iterable[Part],
    manifest: Callable[[dict[tuple[str, str], TensorRow]], Manifest],
    *,
    smallest: bool = False,
    threads: int = 2,
    progress: Added | None = None,
) -> Manifest:
    """Pack `parts` into an empty file; `manifest` makes the manifest once every part's id is known.

    `smallest` trades time for size. `progress` is called with the raw bytes packed since the last call.
    """
    parts = sorted(parts, key=lambda p: (p.name, p.part))
    guess = manifest({(p.name, p.part): TensorRow(p.dtype, p.shape, ZEROS) for p in parts})
    longest = {i: [2 * chunks.CHUNK * 8] * packfile.chunk_count(p.numel) for i, p in enumerate(parts)}
    room = len(packfile.blank_header(_payloads(longest), _description(guess, parts, longest)))

    file.seek(room)
    data_hash = hashlib.sha256()
    sizes: dict[int, list[int]] = {i: [] for i in range(len(parts))}
    hashes = [ids.tensor_hash(p.dtype, p.shape) for p in parts]
    for index, raw, packed in ordered_map(partial(_encode, smallest), _pieces(parts), threads=threads):
        hashes[index].update(raw.data)
        file.write(packed)
        data_hash.update(packed)
        sizes[index].append(len(packed))
        if progress:
            progress(raw.nbytes)

    rows = {
        (p.name, p.part): TensorRow(p.dtype, p.shape, digest.hexdigest())
        for p, digest in zip(parts, hashes, strict=True)
    }
    made = manifest(rows)
    too_large = swollen(made, {(p.name, p.part): sum(sizes[i]) for i, p in enumerate(parts)})
    if too_large is not None and isinstance(made, VectorManifest):
        raise CheckpointRefused(f"{too_large}: pv keeps no steering vector like that")
    if too_large is not None:
        raise CheckpointRefused(
            f"{too_large}: pv keeps no copy of a base like that", hint="refer to it instead: --reference"
        )
    description = _description(made, parts, sizes)
    header = packfile.sealed_header(_payloads(sizes), description, data_hash, pad_to=room)
    if len(header) != room:
        raise FormatError("a pack's header outgrew the room reserved for it")
    file.seek(0)
    file.write(header)
    return made


def _pieces(parts: list[Part]) -> Iterator[tuple[int, Part, int, int]]:
    for index, part in enumerate(parts):
        for start in range(0, part.numel, chunks.CHUNK):
            yield index, part, start, min(start + chunks.CHUNK, part.numel)


def _encode(smallest: bool, piece: tuple[int, Part, int, int]) -> tuple[int, Raw, bytes]:
    index, part, start, stop = piece
    raw = part.read(start, stop)
    reference = None if part.reference is None else part.reference(start, stop)
    columns = part.shape[-1] if len(part.shape) > 1 else 0
    packed = chunks.encode(raw, part.dtype, reference, smallest=smallest, columns=columns, start=start)
    return index, raw, packed


def _description(manifest: Manifest, parts: list[Part], sizes: dict[int, list[int]]) -> dict[str, Any]:
    table = [[p.name, p.part, sizes[i]] for i, p in enumerate(parts)]
    return {"pack": 1, "manifest": manifest.to_json(), "parts": table}


def _payloads(sizes: dict[int, list[int]]) -> dict[str, int]:
    return {str(i): sum(sizes[i]) for i in range(len(sizes))}
