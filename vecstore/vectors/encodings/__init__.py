"""What the parts of a vector mean. Each encoding defines tau in fp32, bit for bit.

An encoding is a module with

    NAME
    check(rows, shape)                           refuses parts that cannot be a tensor's of that shape
    tau(parts, base, shape) -> flat float32      from the stored parts; `base()` gives the base in fp32

and, if not all of its parts are dense or int8's,

    expand(parts, shape) -> (start, stop) -> flat float32      tau's elements start to stop, of those that are not

and, if some of its parts are low-rank factors "a" and "b",

    factored(parts) -> (b, a, scale)             of such parts

and, unless it is only ever captured (`exact`, `lora`),

    EXAMPLES                                     as a person asks for it: "lowrank:64"
    ALLOWED                                      what may stand after the colon, in words
    options(text) -> what `encode` takes         from what stands after the colon; None if that makes no sense
    encode(tau, shape, **options) -> {part: Array}      tau: flat float32; what it keeps, exact or not

What was asked of `encode` (a rank, a share) is noted in the manifest, for people; it is part of the vector's id,
and tau does not depend on it. To add an encoding: a file here, its name in the two tables (here, and ENCODINGS in
registry/manifest), and a section in docs/FORMAT.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from pv.registry.errors import FormatError
from pv.registry.manifest import TensorRow
from pv.vecstore.tensors.array import F32, Array
from pv.vecstore.vectors.encodings import exact, floats, int8, lora, lowrank, sparse, ternary

__all__ = ["ALL", "MADE", "Array", "by_name", "check", "decode", "expand", "factored", "is_factored", "noted"]

ALL: Mapping[str, ModuleType] = {
    module.NAME: module for module in (exact, floats, int8, lora, lowrank, sparse, ternary)
}
MADE: Mapping[str, ModuleType] = {name: module for name, module in ALL.items() if hasattr(module, "encode")}
NOTED = ("rank", "share")


def noted(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `encode`'s options that a manifest names: what cannot be seen in the parts themselves."""
    return {key: options[key] for key in NOTED if key in options}


def by_name(name: str) -> ModuleType:
    if name not in ALL:
        raise FormatError(f"encoding {name!r} is not known here", hint="a newer pv wrote it: upgrade")
    return ALL[name]


def check(encoding: str, rows: Mapping[str, TensorRow], shape: tuple[int, ...]) -> None:
    """Refuse parts that cannot be those of a base tensor of this shape, before memory is taken for them.

    Raises FormatError.
    """
    by_name(encoding).check(rows, shape)


def is_factored(encoding: str, rows: Collection[str]) -> bool:
    """Whether parts of these names are low-rank factors."""
    return {"a", "b"} <= set(rows) and hasattr(by_name(encoding), "factored")


def factored(encoding: str, parts: Mapping[str, Array]) -> tuple[Array, Array, float]:
    """Factors b (rows, rank) and a (rank, columns), and the scale of their product, where `is_factored`."""
    found: tuple[Array, Array, float] = by_name(encoding).factored(parts)
    return found


def expand(encoding: str, parts: Mapping[str, Array], shape: tuple[int, ...]) -> Callable[[int, int], F32]:
    """tau's elements start to stop, of parts of several elements each. Raises FormatError, also as it goes on."""
    found: Callable[[int, int], F32] = by_name(encoding).expand(parts, shape)
    return found


def decode(encoding: str, parts: Mapping[str, Array], base: Callable[[], F32], shape: tuple[int, ...]) -> F32:
    """tau, flat float32, of a base tensor of `shape`. Raises FormatError if the parts do not fit."""
    check(encoding, {name: TensorRow(a.dtype, a.shape, "") for name, a in parts.items()}, shape)
    result: F32 = by_name(encoding).tau(parts, base, shape)
    return result
