"""Baking: steering terms as biases that equal them, so that any runtime that loads the model is steered.

    plan = plan_bake(config, base.tensors, {"formal": Term({"model.layers.14": direction}, 2.0)})
    plan.biases["model.layers.14.mlp.down_proj.bias"]      # 2 * direction; zeros for the other layers' biases
    plan.config                                            # {"mlp_bias": True}
    plan.unbaked                                           # {term: why it is none of that}

A term is baked whole or not at all. Exact is: what a direction at the site adds, the bias adds, at every position; what
is not exactly that is listed with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.manifest import Spec
from pv.vecstore.activations.architectures import Family, Part, family_of
from pv.vecstore.activations.sites import Site
from pv.vecstore.activations.steering import Term
from pv.vecstore.merge.baked import F64, Bias

__all__ = ["BakePlan", "plan_bake"]

FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True, slots=True)
class BakePlan:
    """Biases by tensor, new keys of config.json, the terms that are baked, and those that are not, with the reason."""

    biases: Mapping[str, Bias] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    baked: tuple[str, ...] = ()
    unbaked: Mapping[str, str] = field(default_factory=dict)


def plan_bake(
    config: Mapping[str, Any], specs: Mapping[str, Spec], terms: Mapping[str, Term], rule: str = "add"
) -> BakePlan:
    """What a build of a base with these tensors takes for the terms, by name.

    Raises UsageError for a site in a layer that the base does not have, or a direction that does not fit its site.
    """
    family = family_of(config)
    model = _Model(family, specs) if isinstance(family, Family) else None
    if model is not None and not model.layers:
        return BakePlan(unbaked=dict.fromkeys(terms, "the base's tensors are not named as its config says"))
    unbaked: dict[str, str] = {}
    places: dict[str, list[tuple[_Place, F64]]] = {}
    for name, term in sorted(terms.items()):
        found = (
            []
            if model is None
            else [_at(model, name, site, one) for site, one in sorted(term.directions.items())]
        )
        why = _why_not(name, term, terms, rule) or (family if isinstance(family, str) else None)
        why = why or next((place for place in found if isinstance(place, str)), None)
        if why is not None:
            unbaked[name] = why
            continue
        ready = [place for place in found if isinstance(place, _Place)]
        added = (term.coefficient * one.astype(np.float64) for _, one in sorted(term.directions.items()))
        places[name] = list(zip(ready, added, strict=True))
    baked = [one for name in sorted(places) for one in places[name]]
    if model is None or not baked:
        return BakePlan(baked=tuple(sorted(places)), unbaked=unbaked)
    flags = sorted(
        {place.part.flag for place, _ in baked if place.part.flag and not model.has(place, "bias")}
    )
    return BakePlan(model.biases(baked, flags), dict.fromkeys(flags, True), tuple(sorted(places)), unbaked)


def _why_not(name: str, term: Term, terms: Mapping[str, Term], rule: str) -> str | None:
    """What of a term itself no bias can do."""
    if rule != "add":
        return f"the rule {rule} depends on the activation"
    if term.when is not None:
        return "it depends on the prompt"
    if term.positions != "all":
        return f"it is for the {term.positions} alone, and a bias is added at every position"
    asked = next(
        (other for other, one in sorted(terms.items()) if one.when is not None and other != name), None
    )
    if asked is not None:
        return f"whether {asked} applies is asked of the model with nothing baked in"
    return None


# Where a site's bias is


@dataclass(frozen=True, slots=True)
class _Place:
    """A projection of one layer, and which part of its output (or input) a site is."""

    part: Part
    layer: int
    site: Site


class _Model:
    """A base's tensors, as its family names them: with or without the name of the model that the blocks are in."""

    def __init__(self, family: Family, specs: Mapping[str, Spec]) -> None:
        self.family, self.specs = family, specs
        self._blocks = next(
            (one for one in (family.blocks, family.blocks.partition(".")[2]) if self._count(one)),
            family.blocks,
        )
        self.layers = self._count(self._blocks)

    def _count(self, blocks: str) -> int:
        layer = 0
        while f"{blocks}.{layer}.{self.family.mlp.out}.weight" in self.specs:
            layer += 1
        return layer

    def tensor(self, layer: int, projection: str, what: str) -> str:
        return f"{self._blocks}.{layer}.{projection}.{what}"

    def has(self, place: _Place, what: str) -> bool:
        return self.tensor(place.layer, place.part.out, what) in self.specs

    def sizes(self, layer: int, projection: str) -> tuple[int, int]:
        """(in, out)"""
        shape = self.specs[self.tensor(layer, projection, "weight")].shape
        return (shape[0], shape[1]) if self.family.transposed else (shape[1], shape[0])

    def biases(self, baked: Iterable[tuple[_Place, F64]], wanted: Collection[str | None]) -> dict[str, Bias]:
        """What is to be added to biases; zeros where a flag makes loaders expect others, which the base has not."""
        family, found = self.family, dict[str, Bias]()
        on = {one for part in (family.mlp, family.attention) if part.flag in wanted for one in part.of_flag}
        for layer in range(self.layers):
            for projection in sorted(on):
                name = self.tensor(layer, projection, "bias")
                if name not in self.specs:
                    found[name] = self._zero(layer, projection)
        for place, direction in baked:
            name = self.tensor(place.layer, place.part.out, "bias")
            found[name] = self._more(
                found.get(name) or self._zero(place.layer, place.part.out), place, direction
            )
        return found

    def _zero(self, layer: int, projection: str) -> Bias:
        weight = self.tensor(layer, projection, "weight")
        return Bias(weight, self.family.transposed, np.zeros(self.sizes(layer, projection)[1]))

    def _more(self, bias: Bias, place: _Place, direction: F64) -> Bias:
        size = self.sizes(place.layer, place.part.out)[0 if place.site.input else 1]
        whole = np.zeros(size)
        start = place.site.index * len(direction)
        whole[start : start + len(direction)] = direction
        if not place.site.input:
            return Bias(bias.weight, bias.transposed, bias.constant + whole, bias.through)
        through = whole if bias.through is None else bias.through + whole
        return Bias(bias.weight, bias.transposed, bias.constant, through)


def _at(model: _Model, term: str, text: str, direction: Any) -> _Place | str:
    """Where a site's bias is; in words, why it has none. Raises UsageError for what cannot be right in this base."""
    site, blocks = Site.parse(text), model.family.blocks
    number, _, inside = site.module.removeprefix(f"{blocks}.").partition(".")
    layer = int(number) if number.isascii() and number.isdecimal() else -1
    if site.module != ".".join(filter(None, (blocks, str(layer), inside))):
        return f"{text} is no part of a block"
    if layer >= model.layers:
        raise UsageError(
            f"steering term {term}: {text} is in layer {layer}, which this base does not have",
            hint=f"its layers are 0 to {model.layers - 1}; `pv steer set {term}` takes other sites",
        )
    mlp, attention = model.family.mlp, model.family.attention
    part = mlp if inside in ("", mlp.out, *mlp.modules) else attention
    if inside not in ("", part.out, *part.modules) or (site.input and inside != part.out):
        return f"{text} is not what a block, its MLP or its attention adds"
    place = _Place(part, layer, site)
    if not model.has(place, "weight") or len(model.specs[model.tensor(layer, part.out, "weight")].shape) != 2:
        return f"the base has no {model.tensor(layer, part.out, 'weight')}"
    _check_size(model, place, term, text, direction.shape)
    if model.specs[model.tensor(layer, part.out, "weight")].dtype not in FLOATS:
        return "its weights are in no format that a bias is added in"
    if part.flag is None and not model.has(place, "bias"):
        return f"{part.out} has no bias, and the config offers none"
    return place


def _check_size(model: _Model, place: _Place, term: str, text: str, shape: tuple[int, ...]) -> None:
    size, site = model.sizes(place.layer, place.part.out)[0 if place.site.input else 1], place.site
    if size % site.count:
        raise UsageError(
            f"steering term {term}: {size} numbers at {site.module} do not divide by {site.count}",
            hint="give the number of heads",
        )
    if shape != (size // site.count,):
        given = " x ".join(map(str, shape))
        raise UsageError(
            f"steering term {term}: a direction of {given} numbers does not fit {text}, which has {size // site.count}",
            hint="the vector is of another model, or of another site",
        )
