"""Canonical JSON (RFC 8785): one spelling for one value, so that a hash can name it.

Reading is strict: UTF-8, no duplicate keys, no NaN or infinity, no half of a surrogate pair, nothing after
the value. And it is bounded: a document may come from a stranger, and a few bytes of JSON can stand for a
hundred times as many of objects, so size, depth and number of values are checked before anything is built.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import rfc8785

from pv.registry.errors import FormatError

__all__ = [
    "dumps",
    "loads",
]

MAX_BYTES = 32 << 20
MAX_DEPTH = 64
MAX_CONTAINERS = 1_000_000
MAX_MEMBERS = 1_000_000
MAX_VALUES = 3_000_000
SHOWN = 80  # characters of a stranger's text that a message repeats

_ALL_BUT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b'[]{}:,"')
_TO_ONE_BRACKET = bytes.maketrans(b"{}", b"[]")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def dumps(value: Any) -> bytes:
    """The canonical bytes of a JSON value. Raises FormatError for what JSON cannot hold."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError) as error:
        raise FormatError(f"not representable as canonical JSON: {str(error)[:SHOWN]}") from error
    except RecursionError as error:
        raise FormatError("not representable as canonical JSON: nested too deep") from error


def loads(data: bytes, *, what: str = "JSON") -> Any:
    """Parse strictly. Raises FormatError naming `what`."""
    try:
        _check_bounds(data)
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_no_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_bounded_int,
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()  # a pair has become one character, a half has not
    except UnicodeEncodeError as error:
        raise FormatError(f"{what} is not valid JSON: a text holds half a surrogate pair") from error
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON: {error}") from error
    return value


def _check_bounds(data: bytes) -> None:
    """Raises ValueError. What is counted is exact for any text that the parser gets through."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes are more than {MAX_BYTES}")
    if b"\\" in data:
        data = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    skeleton = data.translate(None, _ALL_BUT_STRUCTURE)
    if skeleton.count(b'"') > 2 * MAX_VALUES:
        raise ValueError(f"more than {MAX_VALUES} texts")
    skeleton = b"".join(skeleton.split(b'"')[::2]).translate(_TO_ONE_BRACKET)  # every other piece is a text
    for sign, most, name in (
        (b"[", MAX_CONTAINERS, "lists and objects"), (b":", MAX_MEMBERS, "members"), (b",", MAX_VALUES, "values"),
    ):  # fmt: skip
        if skeleton.count(sign) > most:
            raise ValueError(f"more than {most} {name}")
    depth, nested = 0, skeleton.translate(None, b":,")
    while b"[]" in nested:  # what opens and never closes is left to the parser, which says where
        if depth == MAX_DEPTH:
            raise ValueError(f"nested more than {MAX_DEPTH} deep")
        depth, nested = depth + 1, nested.replace(b"[]", b"")  # takes off the innermost of every nest


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice[:SHOWN]!r} appears twice")
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
    if text == "-0":
        return -0.0  # no integer has a sign at zero: whoever wants one (a size, a seed) refuses this
    if len(text) > 22:
        raise ValueError(f"integer {text[:40]} is out of range")
    value = int(text)
    return value if abs(value) < 1 << 53 else float(value)
