"""JSON as the dataclasses that it was made of, each value of the type that its field says."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

__all__ = ["typed"]


def typed(kind: Any, value: Any, where: str) -> Any:
    """A value of a type, of JSON; keys that are no fields are left out.

    Raises KeyError for a field that is not there, ValueError for what is of another type, or not finite.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        some = [one for one in inner if one is not NoneType]
        return None if value is None else typed(some[0], value, where)
    if origin is tuple and isinstance(value, list | tuple):
        return tuple(typed(inner[0], one, where) for one in value)
    if origin is Mapping and isinstance(value, dict):
        return {typed(str, key, where): typed(inner[1], one, where) for key, one in value.items()}
    if origin is Literal and isinstance(value, str) and value in inner:
        return value
    if is_dataclass(kind) and isinstance(value, dict):
        hints = get_type_hints(kind)
        made: Any = kind
        return made(**{key: typed(hint, value[key], f"{where}.{key}") for key, hint in hints.items()})
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:
        return value
    raise ValueError(f"{where}: {str(value)[:40]!r} is not of the type that belongs there")
