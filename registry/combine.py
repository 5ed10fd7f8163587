"""The rule by which behaviours are combined: a merge method of `registry/merge_methods`, and its switches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pv.registry.errors import UsageError
from pv.registry.merge_methods import METHODS, Method, Option, as_json, json_number, shown

__all__ = ["METHODS", "Combine", "Method", "Option", "json_number"]


@dataclass(frozen=True, slots=True)
class Combine:
    """The rule that turns the behaviours' deltas into one: a method and its explicit switches."""

    method: str = "add"
    options: Mapping[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(method: str, *, preset: str | None = None, **options: Any) -> Combine:
        """A checked rule with every switch spelled out; options win over those of a preset. Raises UsageError.

        A switch that is a word of Python's has an underscore after it: `lambda_`.
        """
        row = _row(method)
        given = {name.rstrip("_"): value for name, value in options.items()}
        if preset is not None:
            given = {**_preset(row, preset), **given}
        return _checked(row, {**{option.name: option.default for option in row.options}, **given})

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Combine:
        """The rule that a document says, every switch and no other. Raises UsageError."""
        row = _row(document["method"])
        switches = {name: value for name, value in document.items() if name != "method"}
        later = {option.name: option.default for option in row.options if option.later}
        if missing := [o.name for o in row.options if o.name not in switches and not o.later]:
            raise UsageError(f"method {row.name!r} needs {missing[0]!r}")
        if spelled := [name for name, default in later.items() if switches.get(name) == default]:
            raise UsageError(
                f"method {row.name!r}: {spelled[0]} {later[spelled[0]]} is what it is without a word"
            )
        return _checked(row, {**later, **switches})

    @property
    def switches(self) -> dict[str, Any]:
        """Those that are written down."""
        row = METHODS.get(self.method)
        later = {o.name: o.default for o in row.options if o.later} if row else {}
        return {name: value for name, value in self.options.items() if later.get(name) != value}

    def to_json(self) -> dict[str, Any]:
        return {"method": self.method, **as_json(self.switches)}


def _row(method: str) -> Method:
    if method not in METHODS:
        raise UsageError(f"no combine method {shown(method)}", hint=f"there are: {', '.join(METHODS)}")
    return METHODS[method]


def _checked(row: Method, switches: Mapping[str, Any]) -> Combine:
    known = {option.name: option for option in row.options}
    if unknown := set(switches) - set(known):
        name = min(unknown)
        owners = [method.name for method in METHODS.values() if any(o.name == name for o in method.options)]
        raise UsageError(
            f"method {row.name!r} takes no option {shown(name)}",
            hint=f"that is an option of {', '.join(owners)}: name it as the method"
            if owners
            else f"it has: {', '.join(known)}"
            if known
            else f"it has none: `pv combine {row.name}`",
        )
    checked = {name: option.check(row.name, switches[name]) for name, option in known.items()}
    if (why := row.together(checked)) is not None:
        raise UsageError(f"{row.name}: {why}", hint=f"as they are by default: {row.example}")
    return Combine(row.name, MappingProxyType(checked))


def _preset(method: Method, name: str) -> Mapping[str, float | str]:
    if name not in method.presets:
        owners = [other.name for other in METHODS.values() if name in other.presets]
        known = f"there are: {', '.join(sorted(method.presets))}" if method.presets else None
        raise UsageError(
            f"method {method.name!r} has no preset {shown(name)}",
            hint=f"that is a preset of {', '.join(owners)}: name it as the method" if owners else known,
        )
    return method.presets[name]
