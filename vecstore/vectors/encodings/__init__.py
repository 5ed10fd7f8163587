"""What the parts of a vector mean. Each encoding defines tau in fp32, bit for bit.

An encoding is a module with

    NAME
    check(rows, shape)                           refuses parts that cannot be a tensor's of that shape
    encode(tau, shape, ...) -> {part: Array}     tau: flat float32; what it keeps, exact or not
    tau(parts, base, shape) -> flat float32      from the stored parts; `base()` gives the base in fp32

`exact` and `lora` are captured, not made from tau: they have no `encode`. What was asked of `encode` (a rank,
a share) is noted in the manifest, for people; it is part of the vector's id, and tau does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.encodings import exact, floats, int8, lora, lowrank, sparse, ternary

__all__ = ["Array", "by_name", "check", "decode", "noted"]

_ALL: Mapping[str, ModuleType] = {
    module.NAME: module for module in (exact, floats, int8, lora, lowrank, sparse, ternary)
}
NOTED = ("rank", "share")


def noted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `encode`'s options that a manifest names: what cannot be seen in the parts themselves."""
    return {key: options[key] for key in NOTED if key in options}


def by_name(name: str) -> ModuleType:
    if name not in _ALL:
        raise FormatError(f"encoding {name!r} is not known here", hint="a newer pv wrote it: upgrade")
    return _ALL[name]


def check(encoding: str, rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Refuse parts that cannot be those of a base tensor of this shape, before memory is taken for them.

    Raises FormatError.
    """
    by_name(encoding).check(rows, shape)


def decode(encoding: str, parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    """tau, flat float32, of a base tensor of `shape`. Raises FormatError if the parts do not fit."""
    check(encoding, {name: TensorRow(a.dtype, a.shape, "") for name, a in parts.items()}, shape)
    result: F32 = by_name(encoding).tau(parts, base, shape)
    return result
