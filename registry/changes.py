"""What differs between two personas: a typed value for whatever compares them (merge, show, log, diff).

for change in changes(before, after):
    print(change_line(change))        # of registry/words: ~ listening  weight 1 -> 0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from pv.registry.combine import Combine
from pv.registry.persona import Behaviour, Persona

__all__ = ["FIELDS", "Change", "Value", "changes", "field", "same"]

Value = Behaviour | Combine | str | int | None
"""What a name stands for on one side; None: it is not there."""

FIELDS = ("engine", "combine", "output.dtype", "output.rounding", "output.seed")
"""What may change in a persona beside its behaviours, each a value of its own; the base never does in one history."""


@dataclass(frozen=True, slots=True)
class Change:
    """One name whose value differs: a behaviour, or a field (one of FIELDS, or `base`)."""

    name: str
    kind: Literal["behaviour", "field"]
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
    """Behaviours by name, then fields. Empty if the two are the same."""
    names = sorted(before.behaviours.keys() | after.behaviours.keys())
    found = [Change(n, "behaviour", before.behaviours.get(n), after.behaviours.get(n)) for n in names]
    found += [Change(n, "field", field(before, n), field(after, n)) for n in ("base", *FIELDS)]
    return tuple(change for change in found if not same(change.before, change.after))


def field(persona: Persona, name: str) -> Any:
    """The value of one of FIELDS, or of `base`."""
    if name.startswith("output."):
        return getattr(persona.output, name.removeprefix("output."))
    return getattr(persona, name)


def same(one: Value, other: Value) -> bool:
    """Whether two values are the same in a document: 1 and 1.0 are."""
    return bool(as_json(one) == as_json(other))


def as_json(value: Value) -> Any:
    return value.to_json() if isinstance(value, Behaviour | Combine) else value
