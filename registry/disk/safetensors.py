"""safetensors files, read with our own validator and written as a stream.

The format: 8 bytes little-endian header length N, N bytes of JSON, then the data; the header maps each
name to {"dtype", "shape", "data_offsets": [begin, end]}. We hold every file to the strict reading: the
data is covered without hole or overlap, sizes multiply out, no key twice, no trailing byte. Nothing is
allocated on the word of a header: N is capped, and offsets are checked against the file's real size.
Names are data, never paths.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

from pv.registry import canonical
from pv.registry.disk.closing import Closing
from pv.registry.disk.ranges import FileRanges, Ranges
from pv.registry.dtypes import DTYPES
from pv.registry.errors import FormatError

__all__ = [
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "Entry",
    "TensorFile",
    "header_bytes",
    "is_shape",
    "is_usable_name",
    "parse_header",
]

MAX_HEADER_BYTES = 16 << 20
MAX_TENSORS = 200_000
MAX_NAME_CHARS = 1024
MAX_DIMS = 16
MAX_NUMEL = 1 << 48
MAX_EMPTY_DIM = 1 << 20
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")  # control characters, halves of surrogate pairs


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor in a file. `begin` and `end` are byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


def parse_header(header: bytes, *, data_bytes: int, what: str) -> tuple[list[Entry], dict[str, str]]:
    """Validate header JSON against the number of data bytes that really follow.

    Returns entries in offset order, offsets counted from the start of the data, and the metadata.
    """
    document = canonical.loads(header, what=f"{what}: header")
    if not isinstance(document, dict) or header[:1] != b"{":  # white space in front would be another format's
        raise FormatError(f"{what}: header is not a JSON object")
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise FormatError(f"{what}: __metadata__ must map strings to strings")
    if len(document) > MAX_TENSORS:
        raise FormatError(f"{what}: header names {len(document)} tensors, more than {MAX_TENSORS}")
    entries = sorted(
        (_entry(name, spec, what) for name, spec in document.items()), key=lambda e: (e.begin, e.end)
    )
    position = 0
    for entry in entries:
        if entry.begin != position:
            kind = "overlap" if entry.begin < position else "leave a hole"
            raise FormatError(f"{what}: the offsets of {entry.name[:80]!r} {kind} at byte {position}")
        position = entry.end
    if position != data_bytes:
        verb = "truncated" if position > data_bytes else "followed by bytes that belong to no tensor"
        raise FormatError(
            f"{what} is {verb}: its header describes {position} data bytes, {data_bytes} are there"
        )
    return entries, metadata


def _entry(name: str, spec: object, what: str) -> Entry:
    where = f"{what}: tensor {name[:80]!r}"
    if not is_usable_name(name):
        raise FormatError(f"{where}: unusable name")
    if not isinstance(spec, dict) or set(spec) != {"dtype", "shape", "data_offsets"}:
        raise FormatError(f"{where}: must have exactly dtype, shape and data_offsets")
    dtype, shape, offsets = spec["dtype"], spec["shape"], spec["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise FormatError(f"{where}: unknown dtype {str(dtype)[:40]!r}")
    if not is_shape(shape):
        raise FormatError(f"{where}: shape must be a list of at most {MAX_DIMS} sizes, none absurd")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(n) for n in offsets):
        raise FormatError(f"{where}: data_offsets must be two sizes")
    bits = DTYPES[dtype].bits * math.prod(shape)  # Python integers do not overflow
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise FormatError(
            f"{where}: {dtype} of shape {shape} needs {bits / 8:g} bytes, not {offsets[1] - offsets[0]}"
        )
    return Entry(name, dtype, tuple(shape), offsets[0], offsets[1])


def is_shape(value: object) -> TypeGuard[list[int]]:
    """Whether this is a list of sizes that a tensor can have. Raises nothing.

    One without elements may have no dimension above MAX_EMPTY_DIM: it takes no bytes, and so proves nothing.
    """
    if not isinstance(value, list) or len(value) > MAX_DIMS or not all(_is_size(n) for n in value):
        return False
    count = math.prod(value)
    return count < MAX_NUMEL and (count > 0 or all(n <= MAX_EMPTY_DIM for n in value))


def is_usable_name(name: str) -> bool:
    """Whether a tensor may have this name: at most MAX_NAME_CHARS, nothing that a terminal would obey."""
    return len(name) <= MAX_NAME_CHARS and _UNUSABLE.search(name) is None


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def header_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...], int]],
    metadata: Mapping[str, str],
    *,
    pad_to: int = 0,
) -> bytes:
    """The 8-byte length and the header for tensors {name: (dtype, shape, nbytes)}, laid out in that order.

    Padded with spaces so that the data starts at a multiple of 8, and at least at `pad_to`.
    """
    document: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (dtype, shape, nbytes) in tensors.items():
        document[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, position + nbytes]}
        position += nbytes
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    length = max(8 + len(text), pad_to)
    length += -length % 8
    if length - 8 > MAX_HEADER_BYTES:
        raise FormatError(f"a header of {length} bytes is more than {MAX_HEADER_BYTES}")
    return (length - 8).to_bytes(8, "little") + text.ljust(length - 8)


class TensorFile(Closing):
    """A validated safetensors file, whose bytes are read on demand."""

    def __init__(self, source: Path | Ranges) -> None:
        """A file on this machine, or ranges of one elsewhere, which are closed with it.

        Raises FormatError, and OSError if the file cannot be opened.
        """
        self.source: Ranges = FileRanges(source) if isinstance(source, Path) else source
        try:
            size, what = self.source.size, self.source.where
            prefix = bytes(self.pread(0, min(8, size)))
            if len(prefix) < 8:
                raise FormatError(f"{what} is truncated: {size} bytes cannot hold a safetensors header")
            length = int.from_bytes(prefix, "little")
            if length > MAX_HEADER_BYTES or 8 + length > size:
                if size > 8 and bytes(self.pread(8, 1)) != b"{":  # what a header begins with, if it is there
                    raise FormatError(
                        f"{what} is not a safetensors file",
                        hint="name a folder with model.safetensors, or the file",
                    )
                raise FormatError(f"{what} claims a header of {length} bytes in a file of {size}")
            self.data_start = 8 + length
            entries, self.metadata = parse_header(
                self.header[8:], data_bytes=size - self.data_start, what=what
            )
            self.entries = {
                e.name: Entry(e.name, e.dtype, e.shape, e.begin + self.data_start, e.end + self.data_start)
                for e in entries
            }
        except BaseException:
            self.close()
            raise

    @property
    def header(self) -> bytes:
        """The length and the header, as they are in the file. Not kept: a thousand shards have a thousand."""
        return bytes(self.pread(0, self.data_start))

    def pread(self, offset: int, count: int) -> memoryview:
        """Exactly `count` bytes from `offset` of the file; FormatError if the file has become shorter."""
        return self.source.read(offset, count)

    def read(self, name: str, start: int = 0, stop: int | None = None) -> memoryview:
        """Raw bytes `start` to `stop` of a tensor (all of them by default). Raises KeyError."""
        entry = self.entries[name]
        stop = entry.nbytes if stop is None else stop
        if not 0 <= start <= stop <= entry.nbytes:
            raise ValueError(f"bytes {start} to {stop} of a tensor of {entry.nbytes}")
        return self.source.read(entry.begin + start, stop - start, stretch=(entry.begin, entry.end))

    def place(self, name: str) -> tuple[int, int]:
        """The file's descriptor, and where in it the tensor begins. Raises KeyError, ValueError for one elsewhere."""
        if not isinstance(self.source, FileRanges):
            raise ValueError(f"{self.source.where} is not a file on this machine")
        return self.source.fileno(), self.entries[name].begin

    def close(self) -> None:
        self.source.close()
