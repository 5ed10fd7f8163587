"""Packs: one file a vector or a pinned base, a valid safetensors file of packed chunks.

    __metadata__.pv      canonical JSON {"pack": 1, "manifest": ..., "parts": [[name, part, [chunk bytes]]]}
    __metadata__.sha256  of: the 8 length bytes and the header with these 64 digits as zeros, then the
                         SHA-256 of all data after the header
    tensors "0", "1"...  U8: the chunks of each part, in the order of "parts"

The header's room is reserved before the payload is known (an upper bound, padded with spaces), so a pack
is written in one pass. Reading a part always ends with comparing its id: what comes out is right or an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import numpy as np

from pv.registry import canonical, ids
from pv.registry.errors import CorruptPack, FormatError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest
from pv.registry.tensorfile import TensorFile, header_bytes
from pv.vecstore.codecs import chunks
from pv.vecstore.codecs.layout import LAYOUTS, Raw
from pv.vecstore.parallel import ordered_map

__all__ = ["Pack", "Part", "Reference", "write_pack"]

Manifest = BaseManifest | VectorManifest
Reference = Callable[[int, int], Raw]
"""Elements start to stop of the base tensor a part is packed against, in the part's dtype."""

ZEROS = "0" * 64


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
        count = 1
        for n in self.shape:
            count *= n
        return count


def write_pack(
    file: IO[bytes],
    parts: Iterable[Part],
    manifest: Callable[[dict[tuple[str, str], TensorRow]], Manifest],
    *,
    smallest: bool = False,
    threads: int = 2,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Pack `parts` into an empty file; `manifest` makes the manifest once every part's id is known.

    `smallest` trades time for size. `progress` is called with the raw bytes packed since the last call.
    """
    parts = sorted(parts, key=lambda p: (p.name, p.part))
    guess = manifest({(p.name, p.part): TensorRow(p.dtype, p.shape, ZEROS) for p in parts})
    longest = {i: [2 * chunks.CHUNK * 8] * _chunk_count(p.numel) for i, p in enumerate(parts)}
    room = len(_header(guess, parts, longest, ZEROS, pad_to=0))

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
    blank = _header(made, parts, sizes, ZEROS, pad_to=room)
    checksum = hashlib.sha256(blank + data_hash.digest()).hexdigest()
    header = _header(made, parts, sizes, checksum, pad_to=room)
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
    return index, raw, chunks.encode(raw, part.dtype, reference, smallest=smallest)


def _chunk_count(numel: int) -> int:
    return -(-numel // chunks.CHUNK)


def _header(
    manifest: Manifest, parts: list[Part], sizes: dict[int, list[int]], checksum: str, *, pad_to: int
) -> bytes:
    table = [[p.name, p.part, sizes[i]] for i, p in enumerate(parts)]
    document = {"pack": 1, "manifest": manifest.to_json(), "parts": table}
    metadata = {"pv": canonical.dumps(document).decode(), "sha256": checksum}
    tensors = {str(i): ("U8", (sum(sizes[i]),), sum(sizes[i])) for i in range(len(parts))}
    return header_bytes(tensors, metadata, pad_to=pad_to)


class Pack:
    """An opened pack. Opening validates the whole structure; `read` verifies what it gives."""

    def __init__(self, path: Path, *, expect: str | None = None) -> None:
        self.path = path
        with ExitStack() as stack:
            try:
                self._file = stack.enter_context(TensorFile(path))
                self.manifest, self._chunks = _parse(self._file, str(path))
            except FormatError as error:
                raise CorruptPack(str(error), hint="run `pv fsck`") from error
            if expect is not None and self.manifest.id != expect:
                raise CorruptPack(
                    f"{path} holds {self.manifest.id[:12]}, not {expect[:12]}", hint="run `pv fsck`"
                )
            stack.pop_all()  # from here on, `close` closes it

    def read(self, name: str, part: str, reference: Reference | None = None) -> Raw:
        """A whole part as flat storage integers; its id is checked. Raises CorruptPack, KeyError."""
        row = self._row(name, part)
        whole = np.empty(row.numel, LAYOUTS[row.dtype].storage)
        for start, raw in self.stream(name, part, reference):
            whole[start : start + len(raw)] = raw
        return whole

    def stream(self, name: str, part: str, reference: Reference | None = None) -> Iterator[tuple[int, Raw]]:
        """The same in pieces of CHUNK elements: (start, elements). The id is checked after the last one."""
        row = self._row(name, part)
        digest = ids.tensor_hash(row.dtype, row.shape)
        for number in range(_chunk_count(row.numel)):
            raw = self.chunk(name, part, number, reference)
            digest.update(raw.data)
            yield number * chunks.CHUNK, raw
        if digest.hexdigest() != row.id:
            raise self._damaged(name, "its bytes do not hash to its id")

    def chunk(self, name: str, part: str, number: int, reference: Reference | None = None) -> Raw:
        """One chunk of a part, not checked against the id: that needs the whole."""
        row = self._row(name, part)
        index, sizes = self._chunks[name, part]
        start = number * chunks.CHUNK
        stop = min(start + chunks.CHUNK, row.numel)
        position = sum(sizes[:number])
        data = self._file.read(str(index), position, position + sizes[number])
        against = None if reference is None else reference(start, stop)
        try:
            return chunks.decode(data, stop - start, row.dtype, against)
        except CorruptPack as error:
            raise self._damaged(name, str(error)) from error

    def checksum_holds(self) -> bool:
        """True if the file is, byte for byte, what was written."""
        header = self._file.header
        stated = self._file.metadata["sha256"].encode()
        data = hashlib.sha256()
        end = max((e.end for e in self._file.entries.values()), default=self._file.data_start)
        for start in range(self._file.data_start, end, 1 << 22):
            data.update(self._file.pread(start, min(1 << 22, end - start)))
        blank = header.replace(stated, ZEROS.encode())
        return hashlib.sha256(blank + data.digest()).hexdigest().encode() == stated

    def _row(self, name: str, part: str) -> TensorRow:
        if isinstance(self.manifest, VectorManifest):
            return self.manifest.tensors[name][part]
        return self.manifest.tensors[name]

    def _damaged(self, name: str, why: str) -> CorruptPack:
        return CorruptPack(
            f"{self.path}: tensor {name!r}: {why}", hint="run `pv fsck` to see what it affects"
        )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _parse(file: TensorFile, what: str) -> tuple[Manifest, dict[tuple[str, str], tuple[int, list[int]]]]:
    if set(file.metadata) != {"pv", "sha256"} or not ids.is_id(file.metadata["sha256"]):
        raise FormatError(f"{what} is not a pack")
    document = canonical.loads(file.metadata["pv"].encode(), what=what)
    if not isinstance(document, dict) or set(document) != {"pack", "manifest", "parts"}:
        raise FormatError(f"{what}: the pack's description is malformed")
    if document["pack"] != 1:
        raise FormatError(f"{what}: pack version {document['pack']!r} is not known here", hint="upgrade pv")
    manifest = _manifest(document["manifest"], what)
    rows = _rows(manifest)
    table: dict[tuple[str, str], tuple[int, list[int]]] = {}
    if not isinstance(document["parts"], list) or not len(document["parts"]) == len(rows) == len(
        file.entries
    ):
        raise FormatError(f"{what}: parts and manifest disagree")
    for index, entry in enumerate(document["parts"]):
        match entry:
            case [str(name), str(part), list(sizes)] if all(type(n) is int and n > 0 for n in sizes):
                row = rows.get((name, part))
                stored = file.entries.get(str(index))
                if row is None or (name, part) in table or stored is None or stored.dtype != "U8":
                    raise FormatError(f"{what}: part {name[:80]!r} is not in the manifest, or twice")
                if len(sizes) != _chunk_count(row.numel) or sum(sizes) != stored.nbytes:
                    raise FormatError(f"{what}: the chunks of {name[:80]!r} do not add up")
                table[name, part] = (index, sizes)
            case _:
                raise FormatError(f"{what}: a part is [name, part, chunk sizes]")
    return manifest, table


def _manifest(document: Any, what: str) -> Manifest:
    data = canonical.dumps(document)
    if isinstance(document, dict) and document.get("kind") == "base":
        return BaseManifest.from_bytes(data, what)
    return VectorManifest.from_bytes(data, what)


def _rows(manifest: Manifest) -> dict[tuple[str, str], TensorRow]:
    if isinstance(manifest, BaseManifest):
        return {(name, "w"): row for name, row in manifest.tensors.items()}
    return {(name, part): row for name, parts in manifest.tensors.items() for part, row in parts.items()}
