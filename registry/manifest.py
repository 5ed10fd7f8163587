"""Manifests: the JSON documents in a commit's tree that say what a base or a vector is made of.

A manifest is logical: names, dtypes, shapes and tensor ids. How the bytes are packed is the pack's own
affair and may change without changing any id. Parsing validates everything: a foreign manifest is data
from a stranger. An id is computed once.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pv.registry import canonical, ids
from pv.registry.disk.safetensors import is_shape, is_usable_name
from pv.registry.dtypes import DTYPES
from pv.registry.errors import FormatError
from pv.registry.steering import MAX_SITES, is_site

__all__ = [
    "ENCODINGS",
    "STEERING",
    "BaseManifest",
    "Spec",
    "TensorRow",
    "VectorManifest",
    "check_origin",
    "is_direction",
    "is_plain_file_name",
]

SCHEMA = 1
ORIGINS = {"hub": {"kind", "repo", "revision"}, "path": {"kind", "path"}}
STEERING = "steering"
"""The encoding of a steering vector: its tensors are directions at sites of a model, not deltas of weights."""
ENCODINGS = ("exact", "float", "int8", "lora", "lowrank", "sparse", STEERING, "ternary")


@dataclass(frozen=True, slots=True)
class Spec:
    """What a tensor is: safetensors dtype name ("BF16") and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * DTYPES[self.dtype].bits // 8


@dataclass(frozen=True, slots=True)
class TensorRow(Spec):
    """One tensor of a table: what it is, and the id of its raw bytes."""

    id: str

    def to_json(self) -> list[Any]:
        return [self.dtype, list(self.shape), self.id]

    @staticmethod
    def from_json(value: Any, what: str) -> TensorRow:
        match value:
            case [str(dtype), shape, str(tid)] if dtype in DTYPES and is_shape(shape):
                return TensorRow(dtype, tuple(shape), ids.check_id(tid, what))
        raise FormatError(f"{what}: a tensor is [dtype, shape, id]")


@dataclass(frozen=True)
class BaseManifest:
    """The tensor table of a base, where it came from, and the side files (config, tokenizer) kept with it.

    `origin` is {"kind": "path", "path": ...} or {"kind": "hub", "repo": ..., "revision": 40 hex digits}.
    """

    tensors: Mapping[str, TensorRow]
    origin: Mapping[str, str]
    files: tuple[str, ...] = ()
    pinned: bool = False

    @cached_property
    def id(self) -> str:
        return ids.base_id((name, row.dtype, row.shape, row.id) for name, row in self.tensors.items())

    @property
    def name(self) -> str:
        """What people call it: its repository on the Hub, or the last part of its path. Anybody may have written it."""
        repo = self.origin.get("repo")
        return repo or re.split(r"[\\/]+", self.origin.get("path", "").rstrip("\\/"))[-1] or "unnamed"

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "base",
            "id": self.id,
            "origin": dict(self.origin),
            "files": list(self.files),
            "pinned": self.pinned,
            "tensors": {name: row.to_json() for name, row in self.tensors.items()},
        }

    def to_bytes(self) -> bytes:
        return canonical.dumps(self.to_json())

    @staticmethod
    def from_bytes(data: bytes, what: str = "base manifest") -> BaseManifest:
        return BaseManifest.from_json(canonical.loads(data, what=what), what)

    @staticmethod
    def from_json(document: Any, what: str = "base manifest") -> BaseManifest:
        """Validate a document. Raises FormatError that names what is wrong."""
        doc = _checked(document, "base", {"origin", "files", "pinned", "tensors"}, what)
        tensors = {
            _name(name, what): TensorRow.from_json(row, f"{what}: {name[:80]!r}")
            for name, row in doc["tensors"].items()
        }
        origin, files = doc["origin"], doc["files"]
        check_origin(origin, what)
        if not isinstance(files, list) or not all(
            isinstance(f, str) and is_plain_file_name(f) for f in files
        ):
            raise FormatError(f"{what}: files must be plain file names")
        if not isinstance(doc["pinned"], bool):
            raise FormatError(f"{what}: pinned must be true or false")
        manifest = BaseManifest(
            MappingProxyType(tensors), MappingProxyType(origin), tuple(files), doc["pinned"]
        )
        if manifest.id != doc["id"]:
            raise FormatError(
                f"{what}: its tensors give id {manifest.id[:12]}, it claims {str(doc['id'])[:12]!r}"
            )
        return manifest


@dataclass(frozen=True)
class VectorManifest:
    """A vector: its base, its encoding, and for each tensor it touches the parts that define tau there.

    What the parts mean belongs to the encoding: `exact` has one part "ft" (the fine-tuned tensor bit for
    bit), `float` one part "tau", `int8` the parts "q" and "scale", `lora` "a", "b" and "s".
    """

    base: str
    encoding: str
    tensors: Mapping[str, Mapping[str, TensorRow]]
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        encoding = (
            canonical.dumps([self.encoding, dict(self.options)]).decode() if self.options else self.encoding
        )
        rows = ((name, part, row.id) for name, parts in self.tensors.items() for part, row in parts.items())
        return ids.vector_id(self.base, encoding, rows)

    @property
    def is_steering(self) -> bool:
        """Whether it steers activations; if not, it is a task vector, and changes weights."""
        return self.encoding == STEERING

    def to_json(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "kind": "vector",
            "id": self.id,
            "base": self.base,
            "encoding": self.encoding,
            "options": dict(self.options),
            "tensors": {
                name: {part: row.to_json() for part, row in parts.items()}
                for name, parts in self.tensors.items()
            },
        }

    def to_bytes(self) -> bytes:
        return canonical.dumps(self.to_json())

    @staticmethod
    def from_bytes(data: bytes, what: str = "vector manifest") -> VectorManifest:
        return VectorManifest.from_json(canonical.loads(data, what=what), what)

    @staticmethod
    def from_json(document: Any, what: str = "vector manifest") -> VectorManifest:
        """Validate a document. Raises FormatError that names what is wrong."""
        doc = _checked(document, "vector", {"base", "encoding", "options", "tensors"}, what)
        if doc["encoding"] not in ENCODINGS:
            raise FormatError(f"{what}: unknown encoding {str(doc['encoding'])[:40]!r}")
        if not isinstance(doc["options"], dict):
            raise FormatError(f"{what}: options must be an object")
        tensors: dict[str, Mapping[str, TensorRow]] = {}
        for name, parts in doc["tensors"].items():
            if not isinstance(parts, dict) or not parts:
                raise FormatError(f"{what}: tensor {name[:80]!r} has no parts")
            tensors[_name(name, what)] = MappingProxyType(
                {
                    _name(part, what): TensorRow.from_json(row, f"{what}: {name[:80]!r} {part[:20]!r}")
                    for part, row in parts.items()
                }
            )
        if doc["encoding"] == STEERING:
            _check_directions(tensors, doc["options"], what)
        manifest = VectorManifest(
            ids.check_id(doc["base"], f"{what}: base"),
            doc["encoding"],
            MappingProxyType(tensors),
            doc["options"],
        )
        if manifest.id != doc["id"]:
            raise FormatError(
                f"{what}: its tensors give id {manifest.id[:12]}, it claims {str(doc['id'])[:12]!r}"
            )
        return manifest


def is_direction(row: Spec) -> bool:
    """Whether this can be a direction: float32 numbers, at least one, in at least one dimension."""
    return row.dtype == "F32" and bool(row.shape) and row.numel > 0


def _check_directions(sites: Mapping[str, Mapping[str, TensorRow]], options: Any, what: str) -> None:
    if options:
        raise FormatError(f"{what}: a steering vector has no options")
    if not 0 < len(sites) <= MAX_SITES:
        raise FormatError(f"{what}: a steering vector has 1 to {MAX_SITES} sites, not {len(sites)}")
    for site, parts in sites.items():
        if not is_site(site):
            raise FormatError(f"{what}: {site[:80]!r} cannot be a site of a steering vector")
        if parts.keys() != {"direction"} or not is_direction(parts["direction"]):
            raise FormatError(
                f"{what}: site {site[:80]!r} must have one part, a direction of float32 numbers"
            )


def check_origin(origin: Any, what: str) -> Mapping[str, str]:
    """`origin`, if it says where a base comes from. Raises FormatError."""
    if not isinstance(origin, dict) or not all(isinstance(v, str) for v in origin.values()):
        raise FormatError(f"{what}: origin must map strings to strings")
    if set(origin) != ORIGINS.get(origin.get("kind", "")):
        raise FormatError(f"{what}: origin must be a hub with repo and revision, or a path")
    return origin


def is_plain_file_name(name: str) -> bool:
    """True for a name that is one path component, visible, and safe on every file system."""
    forbidden = '/\\:*?"<>|'
    return (
        0 < len(name) <= 200
        and name[0] not in ".-"
        and name[-1] not in " ."
        and not any(ch in forbidden for ch in name)
        and is_usable_name(name)
    )


def _checked(doc: Any, kind: str, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(doc, dict) or doc.get("kind") != kind:
        raise FormatError(f"{what} is not a {kind} manifest")
    if doc.get("schema") != SCHEMA or doc["schema"] is True:
        raise FormatError(
            f"{what}: schema {str(doc.get('schema'))[:40]!r} is not known here",
            hint="a newer pv wrote it: upgrade",
        )
    if set(doc) != keys | {"schema", "kind", "id"}:
        raise FormatError(f"{what} must have exactly: {', '.join(sorted(keys))}")
    if not isinstance(doc["tensors"], dict):
        raise FormatError(f"{what}: tensors must be an object")
    return doc


def _name(name: str, what: str) -> str:
    if not is_usable_name(name):
        raise FormatError(f"{what}: unusable name of a tensor {name[:80]!r}")
    return name
