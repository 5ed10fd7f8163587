"""The parameters of a document, by level: what holds for each model in each tensor."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from pv.registry.errors import UsageError
from pv.vecstore.mergekit.document import Document, Level, Model
from pv.vecstore.mergekit.mixed import Given, Mixed
from pv.vecstore.mergekit.rules import IGNORED, Number, Rule
from pv.vecstore.mergekit.setting import Setting, read_setting, read_switch, shown

__all__ = ["Settings"]


class Settings:
    """The parameters of a document, read once, and asked for each tensor."""

    def __init__(self, document: Document, rule: Rule, *, among: bool) -> None:
        self.document, self.rule, self.among = document, rule, among
        self._read: dict[tuple[str, str], Setting] = {}
        self._used: set[str] = set()
        self._unused: list[str] = []
        for level in document.shared:
            self._check(level, rule.parameters)
        for model in document.models:
            self._check(model.own, (*rule.each, *rule.unused, IGNORED))

    def _check(self, level: Level, known: Sequence[str]) -> None:
        for name, value in level.values.items():
            path = f"{level.path}.{name}"
            if name in self.rule.parameters and name not in known:
                raise UsageError(
                    f"{path}: {name} is one for all models (mergekit passes over it here)",
                    hint="write it under the document's own parameters",
                )
            if name not in known:
                raise UsageError(
                    f"{path} is not a parameter of {self.rule.name}",
                    hint=f"there are: {', '.join(sorted(known))}" + self._also(known),
                )
            if name == IGNORED or name in self.rule.unused:
                self._unused.append(path)
            elif name in self.rule.switches:
                read_switch(value, path)
            else:
                kind = self._kind(name)
                self._read[level.path, name] = read_setting(value, path, above=kind.above, most=kind.most)

    def _also(self, known: Sequence[str]) -> str:
        """What a parameter of a model may not be, and one of the document may."""
        others = sorted({*self.rule.parameters} - {*known})
        return f"; under the document's own parameters also: {', '.join(others)}" if others else ""

    def _kind(self, name: str) -> Number:
        return self.rule.each[name] if name in self.rule.each else self.rule.whole[name]

    def notes(self, base: str) -> Iterator[str]:
        for path in self._unused:
            yield f"{path} has no meaning in pv's {self.rule.name}"
        if not self.among:
            for model in self.document.models:
                if model.name == base and model.own.values:
                    yield f"{model.own.path} has no meaning: {base} is the base"

    def mixed(
        self, models: Sequence[Model], of_base: Model | None, depths: Mapping[str, float]
    ) -> dict[str, Mixed]:
        """What is done to each tensor. Raises UsageError."""
        made: dict[tuple[Any, ...], Mixed] = {}
        mixed = {}
        for tensor, depth in depths.items():
            given = self._given(models, of_base, tensor, depth)
            key = (*given.each.items(), *given.whole.items(), given.of_base)
            if key not in made:
                made[key] = self.rule.make(given)
            mixed[tensor] = made[key]
        self._check_used(depths)
        if self._switch("normalize") and models and not any(any(one.weights) for one in mixed.values()):
            raise UsageError("the weights of all models are 0", hint="give one model a weight above 0")
        return mixed

    def _given(self, models: Sequence[Model], of_base: Model | None, tensor: str, depth: float) -> Given:
        each = {
            name: tuple(self._number(name, model, tensor, depth) for model in models)
            for name in self.rule.each
        }
        whole = {name: self._number(name, None, tensor, depth) for name in self.rule.whole}
        switches = {name: self._switch(name) for name in self.rule.switches}
        own = None
        if of_base is not None and "weight" in self.rule.each:
            own = self._number("weight", of_base, tensor, depth)
        names = tuple(model.name for model in models)
        base = "the base" if of_base is None else of_base.name
        return Given(tensor, names, each, whole, switches, of_base is not None, own, base)

    def _number(self, name: str, model: Model | None, tensor: str, depth: float) -> float:
        levels = (*(() if model is None else (model.own,)), *self.document.shared)
        for level in levels:
            setting = self._read.get((level.path, name))
            if setting is not None and (entry := setting.entry(tensor)) is not None:
                self._used.add(entry.path)
                return entry.at(depth)
        default = self._kind(name).default
        if default is None:
            where = "" if model is None else f"{model.path}: "
            hint = f"{name}: NUMBER under the model's parameters, or a last entry without a filter"
            if self.among and model is not None and model.path == "base_model":
                hint = f"the base is one of the models in {self.rule.name}: name it under `models`, with its {name}"
            raise UsageError(f"{where}{name} is missing for tensor {tensor!r}", hint=hint)
        return default

    def _switch(self, name: str) -> bool:
        for level in self.document.shared:
            if name in level.values:
                return bool(level.values[name])
        return self.rule.switches.get(name, False)

    def _check_used(self, tensors: Collection[str]) -> None:
        for setting in self._read.values():
            for entry in setting.entries:
                if entry.filter is not None and entry.path not in self._used:
                    hidden = any(map(entry.matches, tensors))
                    raise UsageError(
                        f"{entry.path}: the filter {shown(entry.filter)} decides for no tensor",
                        hint="what stands before it decides for all of its tensors: put it above"
                        if hidden
                        else "no tensor of the base has that in its name; mlp or layers.0. would be in some",
                    )
