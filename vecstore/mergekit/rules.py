"""mergekit's merge methods under pv's names: which parameters each has, and what they come to for one tensor.

A row whose pv method is not there (`registry.combine.METHODS`) is refused by name, and works from the day it is.
mergekit's parameters and defaults are those of 0.1.5; docs/mergekit.md says where a result differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pv.registry.combine import METHODS, Combine
from pv.registry.errors import UsageError
from pv.vecstore.mergekit.setting import LARGEST

__all__ = ["IGNORED", "RULES", "Given", "Mixed", "Number", "Rule", "rule_of"]

IGNORED = "int8_mask"
"""What every method takes and nothing comes of: it is about how mergekit holds a mask in memory."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a document. Without a `default` it must be there."""

    default: float | None = None
    above: float | None = None
    most: float = LARGEST


@dataclass(frozen=True, slots=True)
class Given:
    """The parameters that hold for one tensor: `each` has a number for every model, `whole` one for the merge."""

    tensor: str
    models: tuple[str, ...]
    each: Mapping[str, tuple[float, ...]]
    whole: Mapping[str, float]
    switches: Mapping[str, bool]
    of_base: float | None = None  # the weight of the base, where it is a model like the others

    def refuse(self, what: str, hint: str) -> UsageError:
        return UsageError(f"{what} (tensor {self.tensor!r})", hint=hint)


@dataclass(frozen=True, slots=True)
class Mixed:
    """What pv does to one tensor: the weight of each model's difference, and the rule that combines them.

    `itself`: how often the base is added once more. `trims`: densities of the models where they differ.
    """

    weights: tuple[float, ...]
    combine: Combine
    itself: float = 0.0
    trims: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Rule:
    """`base`: "required"; or "among", one of the models. `models`: least and most of them, besides a required base."""

    name: str
    method: str
    make: Callable[[Given], Mixed]
    each: Mapping[str, Number] = field(default_factory=dict)
    whole: Mapping[str, Number] = field(default_factory=dict)
    switches: Mapping[str, bool] = field(default_factory=dict)
    base: Literal["required", "among"] = "required"
    models: tuple[int, int | None] = (1, None)
    unused: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.each, *self.whole, *self.switches, *self.unused, IGNORED)


def rule_of(name: str) -> Rule:
    """The rule that mergekit calls `name`. Raises UsageError for one that pv does not have."""
    there = [rule.name for rule in RULES.values() if rule.method in METHODS]
    if name not in RULES or RULES[name].method not in METHODS:
        raise UsageError(
            f"merge_method: pv has no {name[:40]!r}", hint=f"of mergekit's methods it has: {', '.join(there)}"
        )
    return RULES[name]


def _scaled(given: Given, normalize: bool) -> tuple[float, ...]:
    """The weights, times lambda, and over their sum if that is asked for."""
    weights = given.each["weight"]
    factor = given.whole.get("lambda", 1.0)
    if normalize and any(weights):
        factor /= _total(given, weights)
    return tuple(weight * factor for weight in weights)


def _total(given: Given, weights: Sequence[float]) -> float:
    """The sum of weights that are divided by. Raises UsageError for what such a division turns round."""
    names = (*given.models, "the base")
    for name, weight in zip(names, weights, strict=False):
        if weight < 0:
            raise given.refuse(
                f"the weight of {name} is {weight:g}: divided by the sum of the weights, a negative one loses its sign",
                hint="set normalize: false under parameters, or weights of 0 and more",
            )
    total = math.fsum(weights)
    if total == 0:
        raise given.refuse(
            "the weights sum to 0, and the merge divides by their sum", hint="give one model a weight above 0"
        )
    return total


def _add(given: Given) -> Mixed:
    return Mixed(_scaled(given, given.switches["normalize"]), Combine.of("add"))


def _linear(given: Given) -> Mixed:
    """Σwx / Σw is the base plus Σw(x - base) / Σw; without the division, (Σw - 1) times the base is added."""
    weights = given.each["weight"]
    of_all = (*weights, *(() if given.of_base is None else (given.of_base,)))
    if given.switches["normalize"]:
        total = _total(given, of_all)
        return Mixed(tuple(weight / total for weight in weights), Combine.of("add"))
    return Mixed(weights, Combine.of("add"), itself=math.fsum((*of_all, -1.0)))


def _ties(given: Given) -> Mixed:
    if given.switches["rescale"]:
        raise UsageError("parameters.rescale: pv's ties does not rescale", hint="leave rescale out")
    normalize, weights = given.switches["normalize"], given.each["weight"]
    if normalize and any(weights):
        _total(given, weights)  # nothing but what it refuses
    densities = given.each["density"]
    same = len(set(densities)) == 1
    rule = Combine.of(
        "ties",
        density=densities[0] if same else 1.0,
        elect="weighted",
        merge="weighted_mean" if normalize else "sum",
        lambda_=given.whole["lambda"],
    )
    return Mixed(weights, rule, trims=None if same else densities)


def _copied(given: Given) -> Mixed:
    return Mixed((), Combine.of("add"))


_DENSITY = Number(1.0, above=0, most=1)
_WEIGHT = {"weight": Number()}
_LAMBDA = {"lambda": Number(1.0)}

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "task_arithmetic",
            "add",
            _add,
            _WEIGHT,
            _LAMBDA,
            {"normalize": False},
            unused=("density", "rescale"),
        ),
        Rule("linear", "add", _linear, _WEIGHT, {}, {"normalize": True}, base="among"),
        Rule(
            "ties",
            "ties",
            _ties,
            {**_WEIGHT, "density": _DENSITY},
            _LAMBDA,
            {"normalize": True, "rescale": False},
        ),
        Rule("passthrough", "add", _copied, base="among", models=(1, 1)),
    )
}
