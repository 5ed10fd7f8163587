"""One parameter of a mergekit document: a number, a gradient over the layers, or either by tensor name.

weight: 0.5
weight: [0, 0.5, 1]                     from the first layer to the last, interpolated; 0 outside the layers
weight:                                 the first entry whose filter is part of the tensor's name
  - {filter: self_attn, value: [0, 1]}
  - value: 0.3
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pv.registry.errors import UsageError

__all__ = ["LARGEST", "Entry", "Setting", "read_setting", "read_switch", "shown"]

LARGEST = 1e6  # of a weight, as on the command line
MAX_ENTRIES = 4096


@dataclass(frozen=True, slots=True)
class Entry:
    """Values for the tensors whose name contains `filter`; None for all."""

    filter: str | None
    values: tuple[float, ...]
    path: str

    def matches(self, tensor: str) -> bool:
        return self.filter is None or self.filter in tensor

    def at(self, depth: float) -> float:
        """The value at a depth from 0, the first layer, to 1, the last."""
        place = depth * (len(self.values) - 1)
        low = min(int(place), len(self.values) - 1)
        high = min(low + 1, len(self.values) - 1)
        part = place - low
        return self.values[low] * (1 - part) + self.values[high] * part


@dataclass(frozen=True, slots=True)
class Setting:
    """`path` says where in the document: `models[1].parameters.weight`."""

    path: str
    entries: tuple[Entry, ...]

    def entry(self, tensor: str) -> Entry | None:
        """The entry that decides for a tensor; None leaves it to the next level."""
        return next((entry for entry in self.entries if entry.matches(tensor)), None)


def read_setting(value: Any, path: str, *, above: float | None, most: float) -> Setting:
    """A number, a list of numbers, or a list of {filter, value}. Raises UsageError that names the path."""
    if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
        if len(value) > MAX_ENTRIES:
            raise UsageError(f"{path} has {len(value)} entries", hint=f"at most {MAX_ENTRIES} can be read")
        return Setting(path, tuple(_entry(one, f"{path}[{i}]", above, most) for i, one in enumerate(value)))
    if isinstance(value, Mapping):
        return Setting(path, (_entry(value, path, above, most),))
    return Setting(path, (Entry(None, _values(value, path, above, most), path),))


def read_switch(value: Any, path: str) -> bool:
    """`true` or `false`, for all tensors. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(f"{path} must be true or false, not {shown(value)}", hint=f"{path}: true")
    return value


def _entry(value: Any, path: str, above: float | None, most: float) -> Entry:
    if not isinstance(value, Mapping) or "value" not in value or not value.keys() <= {"filter", "value"}:
        found = f"not {shown(value)}"
        if isinstance(value, Mapping):
            strange = [str(key)[:40] for key in value if key not in ("filter", "value")]
            found = f"and has a key {strange[0]}" if strange else "and has no value"
        raise UsageError(
            f"{path} must be {{filter: PART_OF_A_NAME, value: NUMBER}}, {found}",
            hint="an entry without a filter is for all tensors that no entry above it names",
        )
    chosen = value.get("filter")
    if chosen is not None and not (isinstance(chosen, str) and chosen):
        raise UsageError(
            f"{path}.filter must be part of a tensor's name, not {shown(chosen)}",
            hint="for example: filter: self_attn",
        )
    name = None if chosen in (None, "*") else str(chosen)
    return Entry(name, _values(value["value"], f"{path}.value", above, most), path)


def _values(value: Any, path: str, above: float | None, most: float) -> tuple[float, ...]:
    if isinstance(value, list):
        if not value:
            raise UsageError(
                f"{path} is an empty list", hint="name a number for the first and the last layer"
            )
        return tuple(_number(one, f"{path}[{i}]", above, most) for i, one in enumerate(value))
    return (_number(value, path, above, most),)


def _number(value: Any, path: str, above: float | None, most: float) -> float:
    number = value
    if isinstance(value, str):  # YAML 1.1 takes 1e-3 for a text
        with contextlib.suppress(ValueError):
            number = float(value)
    if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
        raise UsageError(
            f"{path} must be a number, not {shown(value)}",
            hint="or a list of numbers, from the first layer to the last",
        )
    if not abs(number) <= most or (above is not None and not number > above):
        bounds = f"from {-most:g} to {most:g}" if above is None else f"above {above:g} and at most {most:g}"
        raise UsageError(f"{path} is {number:g}", hint=f"it must be a number {bounds}")
    return float(number) + 0.0


def shown(value: object) -> str:
    """A value in a message, as YAML has it: a stranger's may be long."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Mapping):
        return "a table"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "a list"
    return repr(value[:40] if isinstance(value, str) else value)[:60]
