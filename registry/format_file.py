"""`.pv/format`: one line that says what a reader must know before it reads anything else.

    {"git":"sha1","hash":"sha256","pv":1}

Invariant: a registry in which any commit has steering terms is of format 2, which a pv that knows none refuses. What is
of format 2 stays so.
"""

from __future__ import annotations

from pathlib import Path

from pv.registry import canonical
from pv.registry.disk import durable

__all__ = ["KNOWN", "format_bytes", "mark_steering"]

_PLAIN, _STEERING = 1, 2
_HASHES = {"git": "sha1", "hash": "sha256"}
KNOWN: dict[str, tuple[object, ...]] = {
    **{key: (value,) for key, value in _HASHES.items()},
    "pv": (_PLAIN, _STEERING),
}
"""The values of each key that can be read here."""


def format_bytes(*, steering: bool = False) -> bytes:
    """The file of a registry without steering terms, or with some."""
    return canonical.dumps({**_HASHES, "pv": _STEERING if steering else _PLAIN}) + b"\n"


def mark_steering(root: Path) -> None:
    """Make the registry `root` one of format 2, durably: before a ref moves to steering terms, under refs.lock."""
    path, wanted = root / "format", format_bytes(steering=True)
    if not path.is_file() or path.read_bytes() != wanted:
        durable.write_file(path, wanted)
