"""terms: the steering terms of a revision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.steering import Steering
from pv.registry.words import state_words

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["SteeringTerms", "listed"]


@dataclass(frozen=True, slots=True)
class SteeringTerms:
    """The terms of a commit, and the rule by which they are applied together."""

    commit: str
    steering: Steering

    def to_json(self) -> dict[str, Any]:
        terms = sorted(self.steering.terms.items())
        return {
            "commit": self.commit,
            "rule": self.steering.rule,
            "terms": [{"name": name, **term.to_json(), "state": state_words(term)} for name, term in terms],
        }


def listed(repo: Reading, revision: str) -> SteeringTerms:
    """Raises UnknownRevision."""
    commit = repo.registry.resolve(revision)
    return SteeringTerms(commit, repo.registry.persona(commit).steering)
