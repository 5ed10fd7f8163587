"""Merge methods, as a persona names them: one table of methods and their switches.

A method is a row here and a kernel of the same name in `vecstore/merge/methods`; a test holds the two equal.
What a person may ask for, what a document may say, the options of the command line and the words of the
model card all follow from the row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pv.registry.errors import UsageError

__all__ = ["METHODS", "Combine", "Method", "Option"]

LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Option:
    """One switch of a method: one of some `choices`, or a number, which may have to lie in (`above`, `most`]."""

    name: str
    default: float | str
    help: str
    choices: tuple[str, ...] = ()
    above: float | None = None
    most: float | None = None

    def check(self, method: str, value: Any) -> float | str:
        """The value, if it may be. Raises UsageError."""
        what = f"{method}: {self.name}"
        if self.choices:
            if value not in self.choices:
                raise UsageError(f"{what} must be one of {', '.join(self.choices)}, not {_shown(value)}")
            return str(value)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST:
            raise UsageError(f"{what} must be a number no larger than {LARGEST:g}, not {_shown(value)}")
        number = float(value) + 0.0  # -0.0 becomes 0.0: one spelling
        if self.above is not None and not self.above < number:
            raise UsageError(f"{what} must be above {self.above:g}, not {number:g}")
        if self.most is not None and not number <= self.most:
            raise UsageError(f"{what} must be at most {self.most:g}, not {number:g}")
        return number


@dataclass(frozen=True, slots=True)
class Method:
    """`summary` is a clause for the model card. `presets` reproduce another tool; see the kernel for sources."""

    name: str
    summary: str
    options: tuple[Option, ...] = ()
    presets: Mapping[str, Mapping[str, float | str]] = field(default_factory=dict)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method("add", "their deltas are scaled and added to the base's weights"),
            Method(
                "ties",
                "their deltas are trimmed, a sign is elected for each weight, and what agrees is merged (TIES)",
                (
                    Option(
                        "density",
                        0.2,
                        "Share of each tensor's elements, largest first, that trimming keeps.",
                        above=0,
                        most=1,
                    ),
                    Option(
                        "elect",
                        "unweighted",
                        "Sign election: weighted, by the sum of weight times delta; unweighted, of the deltas alone.",
                        ("weighted", "unweighted"),
                    ),
                    Option(
                        "merge",
                        "mean",
                        "How the elements that agree with the sign are merged.",
                        ("mean", "weighted_mean", "sum"),
                    ),
                    Option("lambda", 1.0, "Factor on the result."),
                ),
                {
                    "mergekit": {
                        "density": 1.0,
                        "elect": "weighted",
                        "merge": "weighted_mean",
                        "lambda": 1.0,
                    },
                    "peft": {"elect": "unweighted", "merge": "mean", "lambda": 1.0},
                },
            ),
        )
    }
)


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
        if missing := [option.name for option in row.options if option.name not in switches]:
            raise UsageError(f"method {row.name!r} needs {missing[0]!r}")
        return _checked(row, switches)

    def to_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            **{k: json_number(v) if isinstance(v, float) else v for k, v in self.options.items()},
        }


def _row(method: str) -> Method:
    if method not in METHODS:
        raise UsageError(f"no combine method {_shown(method)}", hint=f"there are: {', '.join(METHODS)}")
    return METHODS[method]


def _checked(row: Method, switches: Mapping[str, Any]) -> Combine:
    known = {option.name: option for option in row.options}
    if unknown := set(switches) - set(known):
        name = min(unknown)
        owners = [method.name for method in METHODS.values() if any(o.name == name for o in method.options)]
        raise UsageError(
            f"method {row.name!r} takes no option {_shown(name)}",
            hint=f"that is an option of {', '.join(owners)}: name it as the method" if owners else None,
        )
    checked = {name: option.check(row.name, switches[name]) for name, option in known.items()}
    return Combine(row.name, MappingProxyType(checked))


def _preset(method: Method, name: str) -> Mapping[str, float | str]:
    if name == "paper" and method.name == "ties":
        raise UsageError(
            "there is no TIES preset 'paper': the paper trims over the whole model, pv per tensor",
            hint="method ties with elect=unweighted and merge=mean is the same but for the trim",
        )
    if name not in method.presets:
        owners = [other.name for other in METHODS.values() if name in other.presets]
        known = f"there are: {', '.join(sorted(method.presets))}" if method.presets else None
        raise UsageError(
            f"method {method.name!r} has no preset {_shown(name)}",
            hint=f"that is a preset of {', '.join(owners)}: name it as the method" if owners else known,
        )
    return method.presets[name]


def json_number(value: float) -> float | int:
    """Integral doubles as integers: RFC 8785 spells both alike, and rfc8785 wants one type."""
    return int(value) if float(value).is_integer() and abs(value) < 1 << 53 else value


def _shown(value: object) -> str:
    """A value in a message: a stranger's may be long."""
    return repr(value[:40] if isinstance(value, str) else value)[:60]
