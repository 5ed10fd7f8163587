"""Content ids: 64 hex digits of SHA-256, with a prefix per kind so that no two kinds can meet.

    tensor   "pv:tensor:1\\n"  + canonical [dtype, shape] + "\\n" + raw little-endian bytes
    base     "pv:base:1\\n"    + canonical [[name, dtype, shape, tensor id], ...] sorted by name
    vector   "pv:vector:1\\n"  + canonical {"base", "encoding", "tensors": [[name, part, tensor id], ...]}
    persona  "pv:persona:1\\n" + canonical persona.json
    build    "pv:build:1\\n"   + canonical [persona id, engine version]
    plan     "pv:plan:1\\n"    + canonical [what is written, [[file, [[name, dtype, shape], ...]], ...]]

docs/FORMAT.md says the same byte for byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

from pv.registry import canonical
from pv.registry.errors import FormatError

__all__ = [
    "base_id",
    "build_id",
    "check_id",
    "is_id",
    "persona_id",
    "plan_id",
    "probe_id",
    "shapes_id",
    "sketches_id",
    "tensor_hash",
    "tensor_id",
    "tensor_key",
    "vector_id",
]

_HEX64 = re.compile(r"[0-9a-f]{64}")


def is_id(text: object) -> bool:
    return isinstance(text, str) and _HEX64.fullmatch(text) is not None


def check_id(text: object, what: str) -> str:
    """`text` itself if it is 64 lower-case hex digits. Ids become paths: nothing else may pass."""
    if not is_id(text):
        raise FormatError(f"{what} is not an id of 64 hex digits: {str(text)[:80]!r}")
    return str(text)


def tensor_hash(dtype: str, shape: Sequence[int]) -> hashlib._Hash:
    """A running hash to feed a tensor's raw bytes into, in order; its hexdigest is the tensor id."""
    return hashlib.sha256(b"pv:tensor:1\n" + canonical.dumps([dtype, list(shape)]) + b"\n")


def tensor_id(dtype: str, shape: Sequence[int], raw: bytes | memoryview) -> str:
    digest = tensor_hash(dtype, shape)
    digest.update(raw)
    return digest.hexdigest()


def _of(kind: str, value: Any) -> str:
    return hashlib.sha256(f"pv:{kind}:1\n".encode() + canonical.dumps(value)).hexdigest()


def base_id(rows: Iterable[tuple[str, str, Sequence[int], str]]) -> str:
    """Id of a checkpoint: rows of (name, dtype, shape, tensor id), in any order."""
    return _of("base", [[name, dtype, list(shape), tid] for name, dtype, shape, tid in sorted(rows)])


def vector_id(base: str, encoding: str, parts: Iterable[tuple[str, str, str]]) -> str:
    """Id of a vector: parts are (tensor name, part name, tensor id), in any order."""
    rows = [list(row) for row in sorted(parts)]
    return _of("vector", {"base": base, "encoding": encoding, "tensors": rows})


def persona_id(document: dict[str, Any]) -> str:
    return _of("persona", document)


def comparison_id(old: str, new: str) -> str:
    """Under which what was measured of two personas is noted."""
    return _of("comparison", [old, new])


def sketches_id(vector: str) -> str:
    """Under which what was sketched of a vector is noted."""
    return _of("sketches", vector)


def shapes_id(rows: Iterable[tuple[str, Sequence[int]]]) -> str:
    """Of the model that a base is one of: its tensors' names and shapes, whatever is in them."""
    return _of("shapes", [[name, list(shape)] for name, shape in sorted(rows)])


def probe_id(question: dict[str, Any]) -> str:
    """Under which a probe is noted: its kind and version, both builds, the ids of the rows, and its settings."""
    return _of("probe", question)


def build_id(persona: str, engine: int) -> str:
    return _of("build", [persona, engine])


def plan_id(what: str, files: list[Any]) -> str:
    """Of the files of an unfinished build: under which its work is kept."""
    return _of("plan", [what, files])


def tensor_key(inputs: dict[str, Any]) -> str:
    """Of all that one tensor of a build is made from: the same key, the same bytes."""
    return _of("key", inputs)
