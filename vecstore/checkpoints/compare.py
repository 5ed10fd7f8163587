"""What keeps two tensor tables from being the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pv.registry.manifest import Spec, TensorRow

__all__ = ["Difference", "differences"]


@dataclass(frozen=True, slots=True)
class Difference:
    """One tensor, and what is other about it than wanted."""

    name: str
    what: str

    def __str__(self) -> str:
        return f"{self.name!r} {self.what}"


def differences(
    wanted: Mapping[str, Spec], found: Mapping[str, Spec], *, owner: str = "the base"
) -> list[Difference]:
    """By name: first what is missing, then what is too much, then what is other. `owner` has the wanted table.

    Values are compared too, where both tables know their ids (`TensorRow`).
    """
    lines = [Difference(name, "is missing") for name in sorted(wanted.keys() - found.keys())]
    lines += [Difference(name, f"is not in {owner}") for name in sorted(found.keys() - wanted.keys())]
    for name in sorted(wanted.keys() & found.keys()):
        a, b = wanted[name], found[name]
        if a.shape != b.shape:
            lines.append(Difference(name, f"has shape {list(b.shape)}, {owner} has {list(a.shape)}"))
        elif a.dtype != b.dtype:
            lines.append(Difference(name, f"is {b.dtype}, {owner} has {a.dtype}"))
        elif isinstance(a, TensorRow) and isinstance(b, TensorRow) and a.id != b.id:
            lines.append(Difference(name, "has other values"))
    return lines
