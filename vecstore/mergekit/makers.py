"""What mergekit's parameters come to in pv's terms, method by method: each function makes one tensor's `Mixed`.

The numbers are those of mergekit 0.1.5. Where pv's method is another in some point (docs/mergekit.md), a parameter that
asks for mergekit's way is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.vecstore.mergekit.mixed import Given, Mixed

__all__ = [
    "add",
    "along_arc",
    "breadcrumbs",
    "copied",
    "dare",
    "della",
    "fusion",
    "karcher",
    "linear",
    "model_stock",
    "multislerp",
    "nearswap",
    "nuslerp",
    "sce",
    "ties",
]


def add(given: Given) -> Mixed:
    return Mixed(_scaled(given), Combine.of("add"))


def linear(given: Given) -> Mixed:
    """Σwx / Σw is the base plus Σw(x - base) / Σw; without the division, (Σw - 1) times the base is added."""
    of_all = (*given.weights, *(() if given.of_base is None else (given.of_base,)))
    if given.switches["normalize"]:
        total = _total(given, of_all)
        return Mixed(tuple(weight / total for weight in given.weights), Combine.of("add"))
    return Mixed(given.weights, Combine.of("add"), itself=math.fsum((*of_all, -1.0)))


def copied(given: Given) -> Mixed:
    return Mixed((), Combine.of("add"))


def ties(given: Given) -> Mixed:
    _only(given, "rescale", False)
    densities = given.each["density"]
    same = len(set(densities)) == 1
    rule = Combine.of(
        "ties",
        density=densities[0] if same else 1.0,
        elect="weighted",
        merge=_merge(given),
        lambda_=given.whole["lambda"],
    )
    return Mixed(given.weights, rule, trims=None if same else densities)


def dare(elect: str, given: Given) -> Mixed:
    _only(given, "rescale", True)
    return _sparse("dare", elect, given, density=_one(given, "density"))


def della(elect: str, given: Given) -> Mixed:
    _only(given, "rescale", True)
    return _sparse("della", elect, given, density=_one(given, "density"), epsilon=_one(given, "epsilon"))


def breadcrumbs(elect: str, given: Given) -> Mixed:
    _only(given, "rescale", False)
    return _sparse("breadcrumbs", elect, given, density=_one(given, "density"), gamma=_one(given, "gamma"))


def _sparse(method: str, elect: str, given: Given, **options: Any) -> Mixed:
    """With an election, what is normalised is what agrees; without, all weights."""
    if elect == "none":
        return Mixed(_scaled(given), Combine.of(method, **options, elect=elect, merge="sum"))
    rule = Combine.of(method, **options, elect=elect, merge=_merge(given), lambda_=given.whole["lambda"])
    return Mixed(given.weights, rule)


def sce(given: Given) -> Mixed:
    return Mixed(given.weights, Combine.of("sce", select_topk=given.whole["select_topk"]))


def model_stock(given: Given) -> Mixed:
    _only(given, "filter_wise", False)
    return Mixed(given.weights, Combine.of("model_stock"))


def along_arc(given: Given) -> Mixed:
    return Mixed(given.weights, Combine.of("slerp", t=given.whole["t"]))


def nuslerp(given: Given) -> Mixed:
    _only(given, "nuslerp_row_wise", False)
    _only(given, "nuslerp_flatten", True)
    return _of_models(given, Combine.of("nuslerp", of=_of(given)))


def multislerp(given: Given) -> Mixed:
    _only(given, "normalize_weights", True)
    return _of_models(given, Combine.of("multislerp", of=_of(given), step="none"))


def karcher(given: Given) -> Mixed:
    rule = Combine.of("karcher", of="models", max_iter=given.whole["max_iter"], tol=given.whole["tol"])
    return Mixed(given.weights, rule, of_base=1.0)


def nearswap(given: Given) -> Mixed:
    return Mixed(given.weights, Combine.of("nearswap", limit=given.whole["t"]))


def fusion(given: Given) -> Mixed:
    return Mixed(given.weights, Combine.of("arcee_fusion"))


def _of(given: Given) -> str:
    return "models" if given.among else "deltas"


def _of_models(given: Given, rule: Combine) -> Mixed:
    _total(given, (*given.weights, *(() if given.of_base is None else (given.of_base,))))
    return Mixed(given.weights, rule, of_base=given.of_base or 0.0)


def _merge(given: Given) -> str:
    """How what agrees is merged: by the mean that the weights weigh, or their sum."""
    if not given.switches["normalize"]:
        return "sum"
    if any(given.weights):
        _total(given, given.weights)  # nothing but what it refuses
    return "weighted_mean"


def _scaled(given: Given) -> tuple[float, ...]:
    """The weights, times lambda, and over their sum if that is asked for."""
    factor = given.whole["lambda"]
    if given.switches["normalize"] and any(given.weights):
        factor /= _total(given, given.weights)
    return tuple(weight * factor for weight in given.weights)


def _total(given: Given, weights: Sequence[float]) -> float:
    """The sum of weights that are divided by. Raises UsageError for what such a division turns round."""
    names = (*given.models, given.base)
    for name, weight in zip(names, weights, strict=False):
        if weight < 0:
            raise given.refuse(
                f"the weight of {name} is {weight:g}: divided by the sum of the weights, a negative one loses its sign",
                hint="set normalize: false under parameters if the method has it, or weights of 0 and more",
            )
    total = math.fsum(weights)
    if total == 0:
        raise given.refuse(
            "the weights sum to 0, and the merge divides by their sum", hint="give one model a weight above 0"
        )
    return total


def _only(given: Given, switch: str, value: bool) -> None:
    """Refuses a switch that asks for what pv's method does not do."""
    if given.switches[switch] != value:
        raise UsageError(
            f"parameters.{switch}: pv's method has no {str(not value).lower()}", hint=f"leave {switch} out"
        )


def _one(given: Given, name: str) -> float:
    """A number that may stand with each model in mergekit, and is one for all in pv."""
    numbers = given.each[name]
    if len(set(numbers)) != 1:
        found = ", ".join(f"{number:g}" for number in numbers)
        raise given.refuse(
            f"{name} differs between the models, {found}: here it is one for all",
            hint=f"write {name} under the document's own parameters; merge_method ties takes one for each model",
        )
    return numbers[0]
