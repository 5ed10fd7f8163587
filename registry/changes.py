"""What differs between two personas: a typed value for whatever compares them (merge, show, log, diff).

for change in changes(before, after):
    print(change_line(change))        # of registry/words: ~ listening  weight 1 -> 0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona
from pv.registry.steering import SteeringTerm

__all__ = ["FIELDS", "RULE", "Change", "Kind", "Value", "changes", "field", "same", "value_of"]

Kind = Literal["behaviour", "field", "steering"]
Value = Behaviour | Combine | SteeringTerm | str | int | None
"""What a name stands for on one side; None: it is not there."""

RULE = "steering.rule"
FIELDS = ("engine", "combine", "output.dtype", "output.rounding", "output.seed", RULE)
"""What may change in a persona beside its behaviours and steering terms, each a value of its own; the base never does
in one history."""


@dataclass(frozen=True, slots=True)
class Change:
    """One name whose value differs: a behaviour, a steering term, or a field (one of FIELDS, or `base`)."""

    name: str
    kind: Kind
    before: Value
    after: Value

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "before": as_json(self.before),
            "after": as_json(self.after),
        }


def changes(before: Persona, after: Persona) -> tuple[Change, ...]:
    """Behaviours by name, then steering terms by name, then fields. Empty if the two are the same."""
    named: list[tuple[str, Kind]] = [
        (n, "behaviour") for n in sorted({*before.behaviours, *after.behaviours})
    ]
    named += [(n, "steering") for n in sorted({*before.steering.terms, *after.steering.terms})]
    named += [(n, "field") for n in ("base", *FIELDS)]
    found = (Change(n, kind, value_of(before, n, kind), value_of(after, n, kind)) for n, kind in named)
    return tuple(change for change in found if not same(change.before, change.after))


def value_of(persona: Persona, name: str, kind: Kind) -> Value:
    """What a name of a kind stands for in a persona; None if it is not there."""
    match kind:
        case "behaviour":
            return persona.behaviours.get(name)
        case "steering":
            return persona.steering.terms.get(name)
    value: Value = field(persona, name)
    return value


def field(persona: Persona, name: str) -> Any:
    """The value of one of FIELDS, or of `base`."""
    value: Any = persona
    for part in name.split("."):
        value = getattr(value, part)
    return value


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same in a document: 1 and 1.0 are."""
    return bool(as_json(one) == as_json(other))


def as_json(value: Value) -> Any:
    return value.to_json() if isinstance(value, Behaviour | Combine | SteeringTerm) else value
