"""Three-way merge of personas: what two sides made of a common ancestor, put together or put in question.

A behaviour (weight, terms and modules) is one value; so is the combine rule; so is each output field. A
value that only one side changed is taken from that side. Changed by both, to different things, it is a
conflict, and nothing is guessed. Reverting and cherry-picking are the same function with other arguments:

    merge          reconcile(common ancestor, ours, theirs)
    revert C       reconcile(C, ours, parent of C)
    cherry-pick C  reconcile(parent of C, ours, C)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from pv.registry.combine import Combine
from pv.registry.conflict import Conflict
from pv.registry.errors import UnknownBehaviour, UsageError
from pv.registry.persona import Behaviour, Output, Persona

__all__ = ["Reconciled", "Take", "reconcile", "revert"]

Take = Literal["ours", "theirs"] | float

_FIELDS = ("engine", "combine", "output.dtype", "output.rounding", "output.seed")


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The merged persona; where there is a conflict, it has our side."""

    persona: Persona
    conflicts: tuple[Conflict, ...]


def reconcile(
    ancestor: Persona | None, ours: Persona, theirs: Persona, take: Mapping[str, Take] | None = None
) -> Reconciled:
    """Merge. `ancestor` None means that the two have no common past: what both have must be equal.

    `take` settles a name in advance: "ours", "theirs", or a weight, which means their terms (ours, if
    they have none) with that weight. Raises UsageError for a name or a value that makes no sense here.
    """
    take = dict(take or {})
    merger = _Merger(take)
    if ours.base != theirs.base:  # even if one side only changed it: the vectors of the other stay behind
        base = None if ancestor is None else ancestor.base
        merger.conflicts.append(Conflict("base", "field", base, ours.base, theirs.base))
    values = {
        name: merger.field(
            name,
            None if ancestor is None else _field(ancestor, name),
            _field(ours, name),
            _field(theirs, name),
        )
        for name in _FIELDS
    }
    before = {} if ancestor is None else ancestor.behaviours
    names = sorted({*before, *ours.behaviours, *theirs.behaviours})
    _check_take(take, names)
    merged = {
        name: merger.behaviour(name, before.get(name), ours.behaviours.get(name), theirs.behaviours.get(name))
        for name in names
    }
    persona = Persona(
        base=ours.base,
        behaviours=MappingProxyType({name: b for name, b in merged.items() if b is not None}),
        combine=values["combine"],
        output=Output(values["output.dtype"], values["output.rounding"], values["output.seed"]),
        engine=values["engine"],
    )
    return Reconciled(persona, tuple(merger.conflicts))


def revert(
    commit: Persona, parent: Persona, head: Persona, take: Mapping[str, Take] | None = None
) -> Reconciled:
    """`head` without what `commit` did to `parent`."""
    return reconcile(commit, head, parent, take)


class _Merger:
    def __init__(self, take: Mapping[str, Take]) -> None:
        self.take = take
        self.conflicts: list[Conflict] = []

    def field(self, name: str, before: Any, ours: Any, theirs: Any) -> Any:
        chosen = self.take.get(name)
        if chosen in ("ours", "theirs"):
            return ours if chosen == "ours" else theirs
        return self._three_way(name, "field", before, ours, theirs)

    def behaviour(
        self, name: str, before: Behaviour | None, ours: Behaviour | None, theirs: Behaviour | None
    ) -> Behaviour | None:
        chosen = self.take.get(name)
        if chosen == "ours":
            return ours
        if chosen == "theirs":
            return theirs
        if chosen is not None:
            source = theirs or ours
            if source is None:
                raise UnknownBehaviour(f"{name!r} is on neither side: it cannot be given a weight")
            return replace(source, weight=float(chosen))
        result: Behaviour | None = self._three_way(name, "behaviour", before, ours, theirs)
        return result

    def _three_way(
        self, name: str, kind: Literal["behaviour", "field"], before: Any, ours: Any, theirs: Any
    ) -> Any:
        b, o, t = _json(before), _json(ours), _json(theirs)
        if o == t or t == b:
            return ours
        if o == b:
            return theirs
        self.conflicts.append(Conflict(name, kind, b, o, t))
        return ours


def _field(persona: Persona, name: str) -> Any:
    if name.startswith("output."):
        return getattr(persona.output, name.removeprefix("output."))
    return getattr(persona, name)


def _json(value: Any) -> Any:
    return value.to_json() if isinstance(value, Behaviour | Combine) else value


def _check_take(take: Mapping[str, Take], behaviours: list[str]) -> None:
    for name, choice in take.items():
        if name == "base" and name not in behaviours:
            raise UsageError(
                "--take base: every vector belongs to one base, so this cannot be chosen",
                hint="build their side, and commit the result as a vector against ours",
            )
        if name not in behaviours and name not in _FIELDS:
            known = ", ".join([*behaviours, *_FIELDS])
            raise UsageError(f"--take {name}: nothing here has that name", hint=f"there are: {known}")
        if isinstance(choice, str) and choice not in ("ours", "theirs"):
            raise UsageError(f"--take {name}={choice}: must be ours, theirs or a weight")
        if not isinstance(choice, str):
            if name not in behaviours:
                raise UsageError(f"--take {name}={choice}: only a behaviour has a weight")
            if isinstance(choice, bool) or not isinstance(choice, int | float) or not abs(choice) <= 1e30:
                raise UsageError(f"--take {name}={choice}: a weight is a finite number")
