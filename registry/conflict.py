"""What two histories made of one thing, where they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

__all__ = ["Conflict", "Origin"]


@dataclass(frozen=True, slots=True)
class Origin:
    """The commit that gave a thing the value that it has."""

    commit: str
    subject: str
    author: str
    time: datetime

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "subject": self.subject,
            "author": self.author,
            "time": self.time.isoformat(),
        }


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides changed `name`. A value is a Behaviour, a SteeringTerm, a Combine, a text or a number; None: not there
    on that side. `take` is what settles it is called by: not the name, of a steering term that shares it.

    A steering term is also in conflict where one side alone changed it, if it is retired by a behaviour that is gone.

    In a revert, `ancestor` is what the commit made of it, `theirs` what was there before it, and `ours` is now; in a
    cherry-pick, `ancestor` is what was there before the commit, and `theirs` what it made of it.
    """

    name: str
    kind: Literal["behaviour", "field", "steering"]
    ancestor: Any
    ours: Any
    theirs: Any
    ours_from: Origin | None = None
    theirs_from: Origin | None = None
    also_called: str | None = None

    @property
    def take(self) -> str:
        return self.also_called or self.name

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "ancestor": _json(self.ancestor),
            "ours": _json(self.ours),
            "theirs": _json(self.theirs),
            "ours_from": _json(self.ours_from),
            "theirs_from": _json(self.theirs_from),
        }


def _json(value: Any) -> Any:
    return value.to_json() if hasattr(value, "to_json") else value
