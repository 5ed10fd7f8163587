"""The fields of a document that says where a vector came from: what has another form raises ValueError.

Anybody may have written one; whoever reads it takes such a document as it is, unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pv.registry import canonical, ids
from pv.registry.errors import FormatError

__all__ = ["bounded", "extra_of", "mapping_of", "number_of", "optional_of", "packs_of", "text_of"]

MAX_FREE = 1 << 16  # bytes of canonical JSON of a field that may hold anything


def bounded(value: Mapping[str, Any], what: str) -> None:
    """Refuse a free field that is no JSON, or too large. Raises FormatError."""
    if len(canonical.dumps(dict(value))) > MAX_FREE:
        raise FormatError(f"{what} is larger than {MAX_FREE} bytes")


def extra_of(document: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """What a later pv may have added: it is handed on."""
    return {key: value for key, value in document.items() if key not in (*known, "kind", "packs")}


def packs_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    listed = document.get("packs", [])
    return tuple(p for p in listed if ids.is_id(p)) if isinstance(listed, list) else ()


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("no text")
    return value


def number_of(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("no number")
    return float(value)


def mapping_of(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("no object")
    return value


def optional_of(value: Any) -> Mapping[str, Any] | None:
    return None if value is None else mapping_of(value)
