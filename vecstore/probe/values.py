"""What a probe found, as JSON and back: frozen dataclasses, each value of the type that its field says.

A record may be anybody's, so it is read strictly. Keys that are no fields are left out: what is computed from fields
is noted beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

from pv.registry.errors import FormatError

__all__ = ["MISREAD", "read", "unlike", "written"]

T = TypeVar("T")
LARGEST = 1e100  # what is drawn is scaled, and may be squared
MISREAD = (
    KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError, AssertionError, StopIteration,
    RuntimeError,
)  # fmt: skip
"""What values may raise, in drawing or going on with them, that no probe noted together: a record may be anybody's."""


def written(value: Any) -> dict[str, Any]:
    """The fields of a dataclass as JSON; what has a `to_json` of its own inside it, as that."""
    return {field.name: _written(getattr(value, field.name)) for field in fields(value)}


def _written(value: Any) -> Any:
    if is_dataclass(value):
        own = getattr(value, "to_json", None)
        return written(value) if own is None else own()
    if isinstance(value, Mapping):
        return {key: _written(one) for key, one in value.items()}
    return [_written(one) for one in value] if isinstance(value, tuple) else value


def read(kind: type[T], document: object) -> T:
    """A value of a type. Raises FormatError that says where it is not."""
    found: T = _read(kind, document, "found")
    return found


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def unlike(where: str) -> FormatError:
    return FormatError(
        f"{where} is not what a probe notes", hint="the same command with --again writes it anew"
    )


def _read(kind: Any, value: Any, where: str) -> Any:
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        if value is None and NoneType in inner:
            return None
        kinds = [one for one in inner if one is not NoneType]
        fits = (one for one in kinds if is_dataclass(one) == isinstance(value, dict))
        return _read(next(fits, kinds[0]), value, where)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [inner[0]] * len(value) if inner[-1] is Ellipsis else list(inner)
        if len(kinds) == len(value):
            return tuple(
                _read(one, v, f"{where}.{at}") for at, (one, v) in enumerate(zip(kinds, value, strict=True))
            )
    elif origin is Mapping and isinstance(value, dict):
        return {_read(str, key, where): _read(inner[1], one, where) for key, one in value.items()}
    elif origin is Literal and value in inner:
        return value
    elif isinstance(value, dict) and (is_dataclass(kind) or is_typeddict(kind)):
        return _fields(kind, value, where)
    elif kind is float and type(value) in (int, float) and abs(value) <= LARGEST:
        return float(value)
    elif (kind is int and type(value) is int and 0 <= value < 1 << 63) or (
        kind in (str, bool) and type(value) is kind
    ):
        return value
    raise unlike(where)


def _fields(kind: Any, value: dict[Any, Any], where: str) -> Any:
    hints = _hints(kind)
    if not (kind.__required_keys__ if is_typeddict(kind) else hints.keys()) <= value.keys():
        raise unlike(where)
    return kind(**{key: _read(hints[key], value[key], f"{where}.{key}") for key in hints if key in value})
