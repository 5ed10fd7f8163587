"""Three-way merge of personas: what two sides made of a common ancestor, put together or put in question.

A behaviour (weight, terms and modules) is one value; so is a steering term; so is the combine rule; so is each
output field. A value that only one side changed is taken from that side. Changed by both, to different things, it
is a conflict, and nothing is guessed. A side without steering terms says nothing of the rule that they are applied by.
A term that would be retired by a behaviour that the other side took out is a conflict too. Reverting and
cherry-picking are the same function with other arguments:

    merge          reconcile(common ancestor, ours, theirs)
    revert C       reconcile(C, ours, parent of C)
    cherry-pick C  reconcile(parent of C, ours, C)

A conflict is settled by a `Take`:

    "ours", "theirs"          that side's value; a steering term is called by its name, or `steering.NAME` where a
                              behaviour or a field has that name
    "ours*0.5", "theirs*0.5"  that side's behaviour, its weight multiplied
    0.5                       the behaviour at this weight, where it is clear which: the sides differ in weight alone,
                              or only one has it
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

from pv.registry.changes import FIELDS, RULE, Kind, field, same
from pv.registry.conflict import Conflict
from pv.registry.errors import UnknownBehaviour, UsageError
from pv.registry.persona import Behaviour, Output, Persona
from pv.registry.steering import Steering, SteeringTerm
from pv.registry.words import number, value_words

__all__ = ["Reconciled", "Take", "reconcile", "revert"]

Take = str | float

Terms = Mapping[str, SteeringTerm]

LARGEST = 1e30


@dataclass(frozen=True, slots=True)
class Reconciled:
    """The merged persona; where there is a conflict, it has our side."""

    persona: Persona
    conflicts: tuple[Conflict, ...]


def reconcile(
    ancestor: Persona | None, ours: Persona, theirs: Persona, take: Mapping[str, Take] | None = None
) -> Reconciled:
    """Merge. `ancestor` None means that the two have no common past: what both have must be equal.

    `take` settles names in advance, see above. Raises UsageError for one that makes no sense here, or would do nothing.
    """
    take = dict(take or {})
    before = {} if ancestor is None else ancestor.behaviours
    names = sorted({*before, *ours.behaviours, *theirs.behaviours})
    fields = {name for name in FIELDS if name not in ours.behaviours and name not in theirs.behaviours}
    of_behaviours = [name for name in names if name not in fields]
    steering = Steering() if ancestor is None else ancestor.steering
    of_terms = _called(
        {*steering.terms, *ours.steering.terms, *theirs.steering.terms}, {*names, *FIELDS, "base"}
    )
    _check_take(take, of_behaviours, of_terms)
    merger = _Merger(take, of_behaviours, of_terms)
    if ours.base != theirs.base:  # even if one side only changed it: the vectors of the other stay behind
        base = None if ancestor is None else ancestor.base
        merger.conflicts.append(Conflict("base", "field", base, ours.base, theirs.base))
    values = {
        name: merger.field(
            name,
            None if ancestor is None else _field(ancestor, name),
            _field(ours, name, theirs),
            _field(theirs, name, ours),
        )
        for name in FIELDS
    }
    merged = {
        name: merger.behaviour(name, before.get(name), ours.behaviours.get(name), theirs.behaviours.get(name))
        for name in names
    }
    behaviours = {name: b for name, b in merged.items() if b is not None}
    there = partial(merger.is_there, ours=ours, theirs=theirs, merged=behaviours)
    terms = merger.terms(steering.terms, ours.steering.terms, theirs.steering.terms, there)
    persona = Persona(
        base=ours.base,
        behaviours=MappingProxyType(behaviours),
        combine=values["combine"],
        output=Output(values["output.dtype"], values["output.rounding"], values["output.seed"]),
        engine=values["engine"],
        steering=Steering.of(values[RULE], terms),
    )
    return Reconciled(persona, tuple(merger.conflicts))


def revert(
    commit: Persona, parent: Persona, head: Persona, take: Mapping[str, Take] | None = None
) -> Reconciled:
    """`head` without what `commit` did to `parent`."""
    return reconcile(commit, head, parent, take)


def _field(persona: Persona, name: str, other: Persona | None = None) -> Any:
    """The value of a field; without steering terms, their rule is the `other` side's."""
    if name == RULE and not persona.steering.terms:
        return None if other is None else other.steering.rule
    return field(persona, name)


def _called(terms: Collection[str], taken: Collection[str]) -> dict[str, str]:
    """What a steering term may be called in a `Take`: its name, unless that is `taken`, and `steering.NAME`."""
    called = {name: name for name in terms if name not in taken}
    for name in sorted(terms):
        said = f"steering.{name}"
        while said in taken or said in terms or said in called:
            said = f"steering.{said}"
        called[said] = name
    return called


def _preferred(called: Mapping[str, str]) -> dict[str, str]:
    """The first thing that each term may be called, by its name."""
    return {name: said for said, name in reversed([*called.items()])}


class _Merger:
    def __init__(
        self, take: Mapping[str, Take], behaviours: Collection[str], terms: Mapping[str, str]
    ) -> None:
        """A behaviour may be called as a field is; then what is taken is the behaviour's. `terms`: see `_called`."""
        self.take = {name: choice for name, choice in take.items() if name in behaviours}
        self.of_terms = {terms[name]: (name, choice) for name, choice in take.items() if name in terms}
        others = (*behaviours, *terms)
        self.of_fields = {name: choice for name, choice in take.items() if name not in others}
        self.called = _preferred(terms)
        self.conflicts: list[Conflict] = []

    def field(self, name: str, before: Any, ours: Any, theirs: Any) -> Any:
        if name in self.of_fields:
            return _side(name, self.of_fields[name], ours, theirs)
        return self._three_way(name, "field", before, ours, theirs)

    def behaviour(
        self, name: str, before: Behaviour | None, ours: Behaviour | None, theirs: Behaviour | None
    ) -> Behaviour | None:
        chosen = self.take.get(name)
        result: Behaviour | None
        if chosen is None:
            result = self._three_way(name, "behaviour", before, ours, theirs)
        elif chosen in ("ours", "theirs"):
            result = _side(name, chosen, ours, theirs)
        elif isinstance(chosen, str):
            result = _share(name, chosen, ours, theirs)
        else:
            result = replace(_unambiguous(name, chosen, ours, theirs), weight=float(chosen) + 0.0)
        return result

    def terms(self, before: Terms, ours: Terms, theirs: Terms, there: Callable[[str], bool]) -> Terms:
        """The steering terms. `there`: whether a behaviour will be, however its conflict is settled."""
        merged = {}
        for name in sorted({*before, *ours, *theirs}):
            sides = before.get(name), ours.get(name), theirs.get(name)
            if name in self.of_terms:
                term = _side(*self.of_terms[name], *sides[1:])
            else:
                term = self._three_way(name, "steering", *sides)
            by = None if term is None else term.retired_by
            if by is not None and not there(by) and (name, "steering") not in self._disputed:
                self._lost(name, by, *sides)
                term = sides[1]
            merged[name] = term
        return {name: term for name, term in merged.items() if term is not None}

    @property
    def _disputed(self) -> set[tuple[str, Kind]]:
        return {(conflict.name, conflict.kind) for conflict in self.conflicts}

    def is_there(self, name: str, ours: Persona, theirs: Persona, merged: Collection[str]) -> bool:
        """Whether a behaviour is in the result; of one in conflict, whichever side is taken."""
        if (name, "behaviour") in self._disputed:
            return name in ours.behaviours and name in theirs.behaviours
        return name in merged

    def _lost(self, name: str, by: str, *sides: SteeringTerm | None) -> None:
        """A term is retired by a behaviour that is gone: that cannot be both."""
        if name in self.of_terms:
            said, side = self.of_terms[name]
            raise UsageError(
                f"--take {said}={side}: {name} is retired by {by} there, and {by} would be gone",
                hint=f"keep the behaviour too: --take {by}={side}; or take the other side's term",
            )
        self.conflicts.append(self._conflict(name, "steering", *sides))

    def _three_way(self, name: str, kind: Kind, before: Any, ours: Any, theirs: Any) -> Any:
        if same(ours, theirs) or same(theirs, before):
            return ours
        if same(ours, before):
            return theirs
        self.conflicts.append(self._conflict(name, kind, before, ours, theirs))
        return ours

    def _conflict(self, name: str, kind: Kind, before: Any, ours: Any, theirs: Any) -> Conflict:
        said = self.called[name] if kind == "steering" else name
        return Conflict(name, kind, before, ours, theirs, also_called=None if said == name else said)


def _side(name: str, choice: Take, ours: Any, theirs: Any) -> Any:
    if same(ours, theirs):  # what is asked for has no effect: whoever asks for it means something else
        raise UsageError(
            f"--take {name}={choice}: there is nothing to choose, both sides have {value_words(ours)}",
            hint=f"leave --take {name}={choice} out",
        )
    return ours if choice == "ours" else theirs


def _share(name: str, choice: str, ours: Behaviour | None, theirs: Behaviour | None) -> Behaviour:
    side, _, factor = choice.partition("*")
    source = ours if side == "ours" else theirs
    if source is None:
        raise UnknownBehaviour(
            f"--take {name}={choice}: {side} has no {name!r}", hint=f"--take {name}={side} leaves it out"
        )
    weight = source.weight * float(factor) + 0.0
    if not abs(weight) <= LARGEST:
        raise UsageError(
            f"--take {name}={choice}: the weight would be {weight:g}",
            hint=f"give a smaller factor, as in --take '{name}={side}*0.5'",
        )
    return replace(source, weight=weight)


def _unambiguous(name: str, weight: float, ours: Behaviour | None, theirs: Behaviour | None) -> Behaviour:
    """What a bare weight is the weight of. Raises UsageError if the sides differ in more than their weights."""
    source = ours or theirs
    if source is None:
        raise UnknownBehaviour(
            f"{name!r} is on neither side: it cannot be given a weight", hint=f"leave --take {name} out"
        )
    if ours and theirs and not same(replace(ours, weight=theirs.weight), theirs):
        sides = f"ours is {value_words(ours)}; theirs is {value_words(theirs)}"
        raise UsageError(
            f"--take {name}={number(weight)}: a weight alone does not say of which: {sides}",
            hint=f"say whose, times a factor: --take '{name}=ours*0.5' or --take '{name}=theirs*0.5'",
        )
    return source


def _check_take(take: Mapping[str, Take], behaviours: list[str], terms: Mapping[str, str]) -> None:
    of_terms = [terms[name] for name in take if name in terms]
    if twice := [name for name in of_terms if of_terms.count(name) > 1]:
        raise UsageError(f"--take: the steering term {twice[0]} is named twice", hint="name it once")
    for name, choice in take.items():
        shown = number(choice) if not isinstance(choice, str) and _is_number(choice) else choice
        said = f"--take {name}={shown}"
        if name == "base" and name not in behaviours:
            raise UsageError(
                "--take base: every vector belongs to one base, so this cannot be chosen",
                hint="build their side, and commit the result as a vector against ours",
            )
        if name not in behaviours and name not in FIELDS and name not in terms:
            known = ", ".join(dict.fromkeys([*behaviours, *FIELDS, *sorted(_preferred(terms).values())]))
            raise UsageError(f"--take {name}: nothing here has that name", hint=f"there are: {known}")
        if choice in ("ours", "theirs"):
            continue
        if not (_is_number(choice) if not isinstance(choice, str) else _is_share(choice)):
            raise UsageError(
                f"{said}: must be ours, theirs, ours*0.5, theirs*0.5, or a weight",
                hint="a weight, or a factor, is a finite number",
            )
        if name not in behaviours:
            raise UsageError(
                f"{said}: only a behaviour has a weight",
                hint=f"--take {name}=ours or --take {name}=theirs",
            )


def _is_share(choice: str) -> bool:
    side, times, factor = choice.partition("*")
    try:
        return bool(times) and side in ("ours", "theirs") and _is_number(float(factor))
    except ValueError:
        return False


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
