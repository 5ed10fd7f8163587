"""mergekit's merge methods under pv's names: which parameters each has, and what makes pv's terms of them.

A row whose pv method is not there (`registry.combine.METHODS`) is refused by name, and works from the day it is.
Parameters and defaults are those of mergekit 0.1.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Literal

from pv.registry.combine import METHODS
from pv.registry.errors import UsageError
from pv.vecstore.mergekit import makers
from pv.vecstore.mergekit.mixed import Given, Mixed
from pv.vecstore.mergekit.setting import LARGEST

__all__ = ["IGNORED", "PARAMETERS", "RULES", "Number", "Rule", "rule_of"]

IGNORED = "int8_mask"
"""What every method takes and nothing comes of: it is about how mergekit holds a mask in memory."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a document. Without a `default` it must be there."""

    default: float | None = None
    above: float | None = None
    most: float = LARGEST


@dataclass(frozen=True, slots=True)
class Rule:
    """`base`: "required"; "among", one of the models; or "optional", where a document without one has it among them.

    `each`, `whole` and `switches` are parameters: numbers of each model, numbers and yes or no of the merge. `models`:
    how many there may be at least and at most, besides a base that is none of them.
    """

    name: str
    method: str
    make: Callable[[Given], Mixed]
    each: Mapping[str, Number] = field(default_factory=dict)
    whole: Mapping[str, Number] = field(default_factory=dict)
    switches: Mapping[str, bool] = field(default_factory=dict)
    base: Literal["required", "among", "optional"] = "required"
    models: tuple[int, int | None] = (1, None)
    unused: tuple[str, ...] = ()

    @property
    def parameters(self) -> tuple[str, ...]:
        return (*self.each, *self.whole, *self.switches, *self.unused, IGNORED)


def rule_of(name: str) -> Rule:
    """The rule that mergekit calls `name`. Raises UsageError for one that pv does not have."""
    there = [rule.name for rule in RULES.values() if rule.method in METHODS]
    if name not in there:
        if name in METHODS:
            raise UsageError(
                f"merge_method: mergekit has no {name!r}, it is a method of pv's own",
                hint=f"`pv combine {name}` sets it in a registry",
            )
        near = get_close_matches(name.lower(), there, 1)
        raise UsageError(
            f"merge_method: pv has no {name[:40]!r}",
            hint=f"did you mean {near[0]}?" if near else f"of mergekit's methods it has: {', '.join(there)}",
        )
    return RULES[name]


_WEIGHT = {"weight": Number()}
_DENSE = {**_WEIGHT, "density": Number(1.0, above=0, most=1)}
_DELLA = {**_DENSE, "epsilon": Number(0.15, most=1)}
_CRUMBS = {**_DENSE, "gamma": Number(0.01, most=1)}
_LAMBDA = {"lambda": Number(1.0)}
_T = {"t": Number(most=1)}


def _switches(normalize: bool, rescale: bool) -> dict[str, bool]:
    return {"normalize": normalize, "rescale": rescale}


_ARITHMETIC = ("density", "rescale")  # of a method that has no mask to use them for

RULES: Mapping[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("task_arithmetic", "add", makers.add, _WEIGHT, _LAMBDA, {"normalize": False}, unused=_ARITHMETIC),
        Rule("linear", "add", makers.linear, _WEIGHT, {}, {"normalize": True}, base="among"),
        Rule("passthrough", "add", makers.copied, base="among", models=(1, 1)),
        Rule("ties", "ties", makers.ties, _DENSE, _LAMBDA, _switches(True, False)),
        Rule("dare_linear", "dare", partial(makers.dare, "none"), _DENSE, _LAMBDA, _switches(False, True)),
        Rule("dare_ties", "dare", partial(makers.dare, "weighted"), _DENSE, _LAMBDA, _switches(False, True)),
        Rule("della_linear", "della", partial(makers.della, "none"), _DELLA, _LAMBDA, _switches(False, True)),
        Rule("della", "della", partial(makers.della, "weighted"), _DELLA, _LAMBDA, _switches(True, True)),
        Rule(
            "breadcrumbs", "breadcrumbs", partial(makers.breadcrumbs, "none"),
            _CRUMBS, _LAMBDA, _switches(False, False),
        ),
        Rule(
            "breadcrumbs_ties", "breadcrumbs", partial(makers.breadcrumbs, "weighted"),
            _CRUMBS, _LAMBDA, _switches(False, False),
        ),
        Rule("sce", "sce", makers.sce, {}, {"select_topk": Number(1.0, above=0, most=1)}),
        Rule("model_stock", "model_stock", makers.model_stock, switches={"filter_wise": False}, models=(2, None)),
        Rule("slerp", "slerp", makers.along_arc, {}, _T, models=(1, 1)),
        Rule(
            "nuslerp", "nuslerp", makers.nuslerp, _WEIGHT, {},
            {"nuslerp_row_wise": False, "nuslerp_flatten": True}, "optional", (2, 2),
        ),
        Rule(
            "multislerp", "multislerp", makers.multislerp, _WEIGHT, {},
            {"normalize_weights": True}, "optional", (2, None), ("eps",),
        ),
        Rule(
            "karcher", "karcher", makers.karcher, {},
            {"max_iter": Number(10, above=0, most=1000), "tol": Number(1e-5, above=0, most=1)}, base="among",
            models=(2, None),
        ),
        Rule("nearswap", "nearswap", makers.nearswap, {}, {"t": Number(above=0)}, models=(1, 1)),
        Rule("arcee_fusion", "arcee_fusion", makers.fusion, models=(1, 1)),
    )
}  # fmt: skip

PARAMETERS = frozenset(name for rule in RULES.values() for name in rule.parameters)
"""Of any method."""
