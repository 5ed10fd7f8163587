"""Canonical JSON (RFC 8785): one spelling for one value, so that a hash can name it.

Reading is strict: UTF-8, no duplicate keys, no NaN or infinity, nothing after the value.
"""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

import rfc8785

from pv.registry.errors import FormatError

__all__ = ["dumps", "loads", "pretty"]

MAX_DEPTH = 64


def dumps(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises FormatError for what JSON cannot hold."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise FormatError(f"not representable as canonical JSON: {error}") from error


def pretty(value: Any) -> bytes:
    """The same value, sorted and indented for people: what a git tree holds and `git diff` shows."""
    dumps(value)  # refuse what has no canonical form
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def loads(data: bytes, *, what: str = "JSON") -> Any:
    """Parse strictly. Raises FormatError naming `what`."""
    try:
        text = data.decode("utf-8")
        value = json.loads(
            text,
            object_pairs_hook=_no_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded_int,
        )
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON: {error}") from error
    return value


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} appears twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _bounded_int(text: str) -> int | float:
    """RFC 8785 writes every whole double below 1e21 without a point: beyond 2^53 it is read back as one."""
    if len(text) > 22:
        raise ValueError(f"integer {text[:40]} is out of range")
    value = int(text)
    return value if abs(value) < 1 << 53 else float(value)
