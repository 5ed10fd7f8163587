"""What two histories made of one thing, where they disagree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["Conflict"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """Both sides changed `name`. Values are JSON; None means that it is not there on that side."""

    name: str
    kind: Literal["behaviour", "field"]
    ancestor: Any
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return (
            f"{self.name}: ours {_say(self.ours)}, theirs {_say(self.theirs)}, before {_say(self.ancestor)}"
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": self.kind,
            "ancestor": self.ancestor,
            "ours": self.ours,
            "theirs": self.theirs,
        }


def _say(value: Any) -> str:
    match value:
        case None:
            return "nothing"
        case {"weight": weight, "terms": [*terms], "modules": modules}:
            sum_ = " + ".join(v[:12] if c == 1 else f"{c:g}·{v[:12]}" for c, v in terms)
            return f"{weight:g} × {sum_ if len(terms) == 1 else f'({sum_})'}" + (
                " by module" if modules else ""
            )
        case {"method": method, **options}:
            return " ".join([method, *(f"{k}={v}" for k, v in sorted(options.items()))])
    return str(value)
