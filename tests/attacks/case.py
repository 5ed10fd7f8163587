"""What a case of the corpus is, and the small things that cases are made of."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.vectors import array, save

from pv.registry import ids
from pv.registry.manifest import BaseManifest, TensorRow
from pv.vecstore.tensors.array import Array

__all__ = ["ADAPTED", "BASE", "FILES", "TENSORS", "Case", "base_folder", "one_file", "safetensors"]

FILES: Mapping[str, str] = {
    "weights": "model.safetensors",
    "large weights": "model.safetensors",
    "chunk": "chunk",
    "persona": "persona.json",
    "base": "base.json",
    "vector": "vector.json",
    "rows": "rows.jsonl",
}
"""For each kind of case that is one file: what that file is called."""


@dataclass(frozen=True, slots=True)
class Case:
    """`lay` puts the case into an empty folder.

    Every entry of `kind` must refuse it with one of the exit codes `exits`, but for those in `taken`: what is
    hostile in the case is nothing to them, and they must get through it. `content` is the file, if it is one.
    """

    name: str
    kind: str
    lay: Callable[[Path], object]
    exits: frozenset[int] = frozenset({3})
    taken: frozenset[str] = frozenset()
    content: bytes | Callable[[], bytes] = b""


def one_file(
    kind: str,
    name: str,
    content: bytes | Callable[[], bytes],
    *,
    exits: tuple[int, ...] = (3,),
    taken: tuple[str, ...] = (),
) -> Case:
    """A case that is one file. Given as a function it is large, and made when it is needed."""

    def lay(folder: Path) -> None:
        (folder / FILES[kind]).write_bytes(content() if callable(content) else content)

    return Case(name, kind, lay, frozenset(exits), frozenset(taken), content)


def safetensors(header: Any, data: bytes = b"", *, length: int | None = None) -> bytes:
    """A safetensors file with any header at all: JSON, or bytes that take its place."""
    text = header if isinstance(header, bytes) else json.dumps(header, separators=(",", ":")).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


# The base that everything here claims to fit -----------------------------------------------------------

TENSORS: Mapping[str, Array] = {
    "model.norm.weight": array("norm", "F32", 6),
    "model.w": array("w", "BF16", 4, 6),
}
BASE = BaseManifest(
    {
        name: TensorRow(t.dtype, t.shape, ids.tensor_id(t.dtype, t.shape, t.raw.data))
        for name, t in TENSORS.items()
    },
    {"kind": "path", "path": "/nowhere"},
    ("config.json",),
)


ADAPTED: Mapping[str, Array] = {
    "model.proj.weight": array("proj", "BF16", 4, 6),
    f"model.{'a.' * 480}weight": array("a", "BF16", 4, 6),
}
"""A base for adapters, whose factors are named after its tensors: one of them as long as a name can be."""


def base_folder(folder: Path, tensors: Mapping[str, Array] = TENSORS) -> Path:
    """The base on disk, as an ordinary checkpoint."""
    return save(folder, tensors)
