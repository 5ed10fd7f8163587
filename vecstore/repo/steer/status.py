"""status: where each steering term stands between a prototype and the weights, and what it lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.steering import SteeringTerm
from pv.registry.steering_words import state_words

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["Standing", "Standings", "status"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A term, its state, and the command that comes next; None where there is nothing left to do."""

    name: str
    term: SteeringTerm
    state: str
    next: str | None

    @property
    def evidence(self) -> Mapping[str, Any]:
        return self.term.evidence

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "state": self.state, "next": self.next, "term": self.term.to_json()}


@dataclass(frozen=True, slots=True)
class Standings:
    commit: str
    terms: tuple[Standing, ...]

    def to_json(self) -> dict[str, Any]:
        return {"commit": self.commit, "terms": [one.to_json() for one in self.terms]}


def status(repo: Reading, revision: str) -> Standings:
    """Raises UnknownRevision."""
    commit = repo.registry.resolve(revision)
    terms = repo.registry.persona(commit).steering.terms
    return Standings(commit, tuple(_standing(name, term) for name, term in sorted(terms.items())))


def _standing(name: str, term: SteeringTerm) -> Standing:
    state = state_words(term)
    after = {
        "off": f"pv steer set {name} 1",
        "extracted": f"pv steer test {name} ROWS",
        "tested": f"pv steer verify {name} ROWS",
        "verified": f"pv steer train {name} --as BEHAVIOUR, or retire it by one",
    }
    return Standing(name, term, state, after.get(state))
