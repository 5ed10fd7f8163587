"""A persona as a mergekit document, where mergekit can say it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pv.registry.combine import json_number
from pv.registry.dtypes import DTYPES, OUTPUTS
from pv.registry.errors import UsageError
from pv.registry.manifest import BaseManifest
from pv.registry.persona import Behaviour, Persona
from pv.vecstore.merge.module_factors import factor

__all__ = ["Said", "as_document", "as_text"]

_SIGNS = "mergekit divides by the sum of the weights, so the sign of a negative one is lost"


@dataclass(frozen=True, slots=True)
class Said:
    """A persona's rule in mergekit's words: its method, its own parameters, and whether models have weights there."""

    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    weights: bool = True
    base: bool = True
    notes: tuple[str, ...] = ()


def as_document(
    persona: Persona, base: BaseManifest, at: str, folders: Mapping[str, str]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The document, and notes on what mergekit does otherwise. `at` is the base, `folders` those of the behaviours.

    Raises UsageError for what mergekit cannot say, by name.
    """
    behaviours = {name: one for name, one in persona.behaviours.items() if one.weight != 0}
    if not behaviours:
        raise UsageError(
            "the persona is the base: no behaviour has a weight",
            hint="there is nothing for mergekit to merge",
        )
    said = _rule(persona, behaviours)
    document: dict[str, Any] = {"merge_method": said.method}
    if said.base:
        document["base_model"] = at
    document["models"] = []
    for name, behaviour in behaviours.items():
        own = {"parameters": {"weight": _weight(behaviour, base)}} if said.weights else {}
        document["models"].append({"model": folders[name], **own})
    if said.parameters:
        document["parameters"] = {key: _plain(value) for key, value in said.parameters.items()}
    document["dtype"] = "float32"
    document["out_dtype"] = _written(persona, base)
    notes = list(said.notes)
    if persona.output.rounding == "stochastic" and document["out_dtype"] != "float32":
        notes.append(
            "the persona rounds stochastically, mergekit to nearest: pv build --rounding nearest compares"
        )
    return document, tuple(notes)


def as_text(document: Mapping[str, Any], comments: Sequence[str]) -> str:
    """YAML with comments above it."""
    import yaml

    lines = "".join(f"# {' '.join(line.splitlines())}\n" for line in comments)
    return lines + str(yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True))


def _rule(persona: Persona, behaviours: Mapping[str, Behaviour]) -> Said:
    options, method = dict(persona.combine.options), persona.combine.method
    match method:
        case "add":
            return Said("task_arithmetic")
        case "linear":
            return Said("linear", base=False)
        case "ties":
            if options["trim"] == "model":
                raise _unsaid(
                    "ties with trim=model", "mergekit trims tensor by tensor: `pv combine ties` does too"
                )
            if options["undecided"] == "none":
                raise _unsaid("ties with undecided=none", "in mergekit what cancels out elects plus")
            switches = _elected(options, behaviours, method)
            return Said("ties", {"density": options["density"], **switches})
        case "dare" | "della" | "breadcrumbs":
            return _sparse(method, options, behaviours)
        case "nuslerp" | "multislerp":
            if options.get("step") == "log":
                raise _unsaid(
                    "multislerp with step=log", "`pv combine multislerp --preset mergekit` is mergekit's"
                )
            return Said(method, base=options["of"] == "deltas")
        case "sce" | "model_stock" | "slerp" | "nearswap" | "arcee_fusion" | "karcher":
            return _unweighted(method, options, behaviours)
    raise _unsaid(f"the merge method {method}", "`pv build` writes the merged checkpoint")


def _elected(options: Mapping[str, Any], behaviours: Mapping[str, Behaviour], method: str) -> dict[str, Any]:
    """normalize and lambda of a method with an election. mergekit's is weighted, and its mean too."""
    weights = {behaviour.weight for behaviour in behaviours.values()}
    same = len(weights) == 1 and min(weights) > 0 and not any(b.modules for b in behaviours.values())
    if options["elect"] != "weighted" and not same:
        raise _unsaid(f"{method} with elect={options['elect']}", "mergekit elects by weighted deltas")
    if options["merge"] == "mean" and not same:
        raise _unsaid(f"{method} with merge=mean", "mergekit has merge=weighted_mean and merge=sum")
    scale = options["lambda"] * (min(weights) if options["merge"] == "mean" else 1)
    return {"normalize": options["merge"] != "sum", "lambda": scale}


def _sparse(method: str, options: Mapping[str, Any], behaviours: Mapping[str, Behaviour]) -> Said:
    own = {name: options[name] for name in ("density", "epsilon", "gamma") if name in options}
    drawn = ("mergekit draws other elements each time, and scales a tensor to the L1 norm it had",)
    notes = () if method == "breadcrumbs" or options["density"] == 1 else drawn
    if options["elect"] == "none":
        if options["merge"] != "sum":
            raise _unsaid(
                f"{method} with elect=none and merge={options['merge']}", "mergekit has merge=sum there"
            )
        name = "breadcrumbs" if method == "breadcrumbs" else f"{method}_linear"
        return Said(name, {**own, "lambda": options["lambda"]}, notes=notes)
    name = "della" if method == "della" else f"{method}_ties"
    return Said(name, {**own, **_elected(options, behaviours, method)}, notes=notes)


def _unweighted(method: str, options: Mapping[str, Any], behaviours: Mapping[str, Behaviour]) -> Said:
    for name, behaviour in behaviours.items():
        if behaviour.weight != 1 or behaviour.modules:
            raise _unsaid(
                f"the weight {behaviour.weight:g} of {name}",
                f"in mergekit's {method} all weights are 1: `pv scale {name} 1`",
            )
    renamed = {"limit": "t"}
    parameters = {renamed.get(key, key): value for key, value in options.items() if key != "of"}
    if method == "karcher" and options["of"] != "models":
        raise _unsaid("karcher of deltas", "mergekit's is of models")
    return Said(method, parameters, weights=False, base=method != "karcher")


def _weight(behaviour: Behaviour, base: BaseManifest) -> Any:
    """A number; with module factors, one by one for the tensors that have another than most."""
    if not behaviour.modules:
        return json_number(behaviour.weight)
    weights = {name: factor(behaviour, name) for name in base.tensors}
    common = Counter(weights.values()).most_common(1)[0][0]
    other = {name for name, weight in weights.items() if weight != common}
    # A filter is part of a name: longer names first, and also those that hold another name.
    named = {name for name in weights if any(inner in name for inner in other)}
    entries = [
        {"filter": name, "value": json_number(weights[name])}
        for name in sorted(named, key=lambda name: (-len(name), name))
    ]
    return [*entries, {"value": json_number(common)}] if entries else json_number(common)


def _written(persona: Persona, base: BaseManifest) -> str:
    """mergekit writes all tensors in one dtype: the persona's, or the one that most of the base's weights have."""
    if persona.output.dtype != "base":
        return str(OUTPUTS[persona.output.dtype].torch)
    counts = Counter[str]()
    for row in base.tensors.values():
        counts[row.dtype] += row.numel if DTYPES[row.dtype].torch else 0
    return str(DTYPES[max(sorted(counts), key=counts.__getitem__)].torch or "float32")


def _plain(value: Any) -> Any:
    return json_number(value) if isinstance(value, float) else value


def _unsaid(what: str, hint: str) -> UsageError:
    return UsageError(f"mergekit cannot say {what}", hint=hint)
