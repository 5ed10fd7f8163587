"""What the parts of a vector mean. Each encoding defines tau in fp32, bit for bit.

An encoding is a module with

    NAME
    PARTS                                        the names of its parts
    encode(tau, shape, ...) -> {part: Array}     tau: flat float32; what it keeps, exact or not
    tau(parts, base) -> flat float32             from the stored parts; `base()` gives the base in fp32
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType

from pv.registry.errors import FormatError
from pv.vecstore.encodings import exact, floats, int8
from pv.vecstore.encodings.array import F32, Array

__all__ = ["Array", "by_name", "decode"]

_ALL: Mapping[str, ModuleType] = {module.NAME: module for module in (exact, floats, int8)}


def by_name(name: str) -> ModuleType:
    if name not in _ALL:
        raise FormatError(f"encoding {name!r} is not known here", hint="a newer pv wrote it: upgrade")
    return _ALL[name]


def decode(encoding: str, parts: Mapping[str, Array], base: Callable[[], F32]) -> F32:
    """tau, flat float32, of one tensor. Raises FormatError if the parts do not fit the encoding."""
    module = by_name(encoding)
    if parts.keys() != module.PARTS:
        raise FormatError(
            f"encoding {encoding!r} has the parts {sorted(module.PARTS)}, not {sorted(parts)[:8]}"
        )
    result: F32 = module.tau(parts, base)
    return result
