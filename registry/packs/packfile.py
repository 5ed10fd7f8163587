"""Packs seen from outside: what a pack says that it holds, and whether it is whole. Nothing is decoded here.

A pack is a safetensors file. Its `__metadata__` has two keys:

    pv      canonical JSON: {"pack": 1, "manifest", "parts"} of a vector or a base,
            {"pack": 1, "kind": "rows", "id"} of training rows
    sha256  of: the 8 length bytes and the header with these 64 digits as zeros, then the SHA-256 of all
            data after the header

Invariant: the checksum covers every byte of the file, so a pack that passes `inspect` is what was written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk.safetensors import TensorFile, header_bytes
from pv.registry.errors import CorruptPack, FormatError
from pv.registry.manifest import BaseManifest, TensorRow, VectorManifest

__all__ = [
    "CHUNK",
    "ZEROS",
    "Description",
    "blank_header",
    "checksum_holds",
    "chunk_count",
    "describe",
    "inspect",
    "is_whole",
    "sealed_header",
]

CHUNK = 1 << 20
"""Elements in every chunk of a part but the last."""

ZEROS = "0" * 64
_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Description:
    """What a pack says that it holds. `parts`: (tensor, part) -> (number of its payload, chunk sizes).

    Training rows have no manifest and no parts.
    """

    id: str
    manifest: BaseManifest | VectorManifest | None
    parts: Mapping[tuple[str, str], tuple[int, list[int]]]

    @property
    def kind(self) -> str:
        """ "base", "vector" or "rows"."""
        if self.manifest is None:
            return "rows"
        return "base" if isinstance(self.manifest, BaseManifest) else "vector"


def blank_header(
    payloads: Mapping[str, int], description: Mapping[str, Any], *, pad_to: int = 0, stated: str = ZEROS
) -> bytes:
    """Length bytes and header of a pack with payloads {name: bytes}; ZEROS where the checksum goes."""
    metadata = {"pv": canonical.dumps(dict(description)).decode(), "sha256": stated}
    tensors = {name: ("U8", (nbytes,), nbytes) for name, nbytes in payloads.items()}
    return header_bytes(tensors, metadata, pad_to=pad_to)


def sealed_header(
    payloads: Mapping[str, int], description: Mapping[str, Any], data: hashlib._Hash, *, pad_to: int = 0
) -> bytes:
    """The same with the checksum in its place. `data` has hashed the payloads, one after another."""
    stated = _checksum(blank_header(payloads, description, pad_to=pad_to), data)
    return blank_header(payloads, description, pad_to=pad_to, stated=stated)


def _checksum(blank: bytes, data: hashlib._Hash) -> str:
    return hashlib.sha256(blank + data.digest()).hexdigest()


def checksum_holds(file: TensorFile, progress: Callable[[int], None] | None = None) -> bool:
    """True if the file is, byte for byte, what was written. `progress` gets the bytes since the last call."""
    stated = file.metadata.get("sha256", "")
    if not ids.is_id(stated):
        return False
    data = hashlib.sha256()
    end = max((e.end for e in file.entries.values()), default=file.data_start)
    for start in range(file.data_start, end, _PIECE):
        piece = file.pread(start, min(_PIECE, end - start))
        data.update(piece)
        if progress:
            progress(len(piece))
    return _checksum(file.header.replace(stated.encode(), ZEROS.encode()), data) == stated


def chunk_count(numel: int) -> int:
    return -(-numel // CHUNK)


def describe(file: TensorFile) -> Description:
    """Validate the structure of an opened pack. Raises FormatError."""
    what = file.source.where
    if set(file.metadata) != {"pv", "sha256"} or not ids.is_id(file.metadata["sha256"]):
        raise FormatError(f"{what} is not a pack")
    document = canonical.loads(file.metadata["pv"].encode(), what=what)
    if not isinstance(document, dict):
        raise FormatError(f"{what}: the pack's description is malformed")
    if document.get("pack") != 1 or document["pack"] is True:
        raise FormatError(
            f"{what}: pack version {str(document.get('pack'))[:40]!r} is not known here", hint="upgrade pv"
        )
    if set(document) == {"pack", "kind", "id"} and document["kind"] == "rows":
        if [(e.name, e.dtype) for e in file.entries.values()] != [("rows", "U8")]:
            raise FormatError(f"{what}: a pack of rows has one payload, the rows")
        return Description(ids.check_id(document["id"], f"{what}: id"), None, {})
    if set(document) != {"pack", "manifest", "parts"}:
        raise FormatError(f"{what}: the pack's description is malformed")
    manifest = _manifest(document["manifest"], what)
    return Description(manifest.id, manifest, _parts(document["parts"], manifest, file, what))


def inspect(
    path: Path, expect: str | None = None, progress: Callable[[int], None] | None = None
) -> Description:
    """Check structure, id and checksum of a pack. Raises CorruptPack, and OSError if it cannot be read."""
    try:
        with TensorFile(path) as file:
            found = describe(file)
            if expect is not None and found.id != expect:
                raise CorruptPack(f"{path} holds {found.id[:12]}, not {expect[:12]}")
            if not checksum_holds(file, progress):
                raise CorruptPack(f"{path}: its bytes do not give its checksum")
    except FormatError as error:
        raise CorruptPack(str(error), hint=error.hint) from error
    return found


def is_whole(path: Path, expect: str) -> bool:
    """True if the file is a pack of that id, byte for byte as it was written."""
    try:
        inspect(path, expect)
    except (CorruptPack, OSError):
        return False
    return True


def _manifest(document: Any, what: str) -> BaseManifest | VectorManifest:
    if isinstance(document, dict) and document.get("kind") == "base":
        return BaseManifest.from_json(document, what)
    return VectorManifest.from_json(document, what)


def _parts(
    table: Any, manifest: BaseManifest | VectorManifest, file: TensorFile, what: str
) -> dict[tuple[str, str], tuple[int, list[int]]]:
    rows = _rows(manifest)
    parts: dict[tuple[str, str], tuple[int, list[int]]] = {}
    if not isinstance(table, list) or not len(table) == len(rows) == len(file.entries):
        raise FormatError(f"{what}: parts and manifest disagree")
    for index, entry in enumerate(table):
        match entry:
            case [str(name), str(part), list(sizes)] if all(type(n) is int and n > 0 for n in sizes):
                row = rows.get((name, part))
                stored = file.entries.get(str(index))
                if row is None or (name, part) in parts or stored is None or stored.dtype != "U8":
                    raise FormatError(f"{what}: part {name[:80]!r} is not in the manifest, or twice")
                if len(sizes) != chunk_count(row.numel) or sum(sizes) != stored.nbytes:
                    raise FormatError(f"{what}: the chunks of {name[:80]!r} do not add up")
                parts[name, part] = (index, sizes)
            case _:
                raise FormatError(f"{what}: a part is [name, part, chunk sizes]")
    return parts


def _rows(manifest: BaseManifest | VectorManifest) -> dict[tuple[str, str], TensorRow]:
    if isinstance(manifest, BaseManifest):
        return {(name, "w"): row for name, row in manifest.tensors.items()}
    return {(name, part): row for name, parts in manifest.tensors.items() for part, row in parts.items()}
