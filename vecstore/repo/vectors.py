"""Every vector that the registry knows: what keeps it, who uses it, and how it came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.history.log import LogEntry
from pv.registry.persona import Persona
from pv.vecstore.repo.commits import everything
from pv.vecstore.repo.stored_vector import StoredVector, stored_vector

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["KnownVector", "Use", "vectors"]


@dataclass(frozen=True, slots=True)
class Use:
    """A behaviour that has the vector, at the tip of a branch or at a tag (refs/heads/main); or a steering term, as
    `steering NAME`."""

    behaviour: str
    ref: str
    commit: str

    def to_json(self) -> dict[str, Any]:
        return {"behaviour": self.behaviour, "ref": self.ref, "commit": self.commit}


@dataclass(frozen=True, slots=True)
class KnownVector:
    """A vector, the first commit that had it and what it was called there, and where it is in use now.

    `kept_for` says what keeps it: a branch or a tag, now or earlier in its history, or only an operation that
    could be undone or redone.
    """

    vector: StoredVector
    first: LogEntry
    name: str
    uses: tuple[Use, ...]
    kept_for: Literal["use", "history", "undo"]

    def to_json(self) -> dict[str, Any]:
        return {
            **self.vector.to_json(),
            "commit": self.first.id,
            "behaviour": self.name,
            "time": self.first.time.isoformat(),
            "uses": [use.to_json() for use in self.uses],
            "kept_for": self.kept_for,
        }


def vectors(repo: Reading) -> list[KnownVector]:
    """Every vector that a branch, a tag or an operation leads to; the newest first."""
    registry = repo.registry
    entries = everything(registry)
    first: dict[str, LogEntry] = {}
    later: dict[
        str, list[tuple[str, str]]
    ] = {}  # commits in which a behaviour came to have the same: trained again, say
    known = {entry.id: entry for entry in entries}
    for entry in reversed(entries):
        before = {v for p in entry.parents if p in known for v in _in_use(known[p].persona)}
        for name, vector in sorted(_in_use(entry.persona) - before):
            if first.setdefault(vector, entry) is not entry:
                later.setdefault(vector, []).append((entry.id, name))
    named = {vector for entry in registry.log(all=True) for vector in entry.persona.vectors}
    tips = sorted((ref, entry) for entry in entries for ref in entry.refs)
    found = []
    for vector, entry in reversed(first.items()):
        uses = tuple(Use(name, ref, tip.id) for ref, tip in tips for name in _names(tip, vector))
        kept_for: Any = "use" if uses else "history" if vector in named else "undo"
        stored = stored_vector(registry, entry.id, vector, later=later.get(vector, ()))
        found.append(KnownVector(stored, entry, _names(entry, vector)[0], uses, kept_for))
    return found


def _in_use(persona: Persona) -> set[tuple[str, str]]:
    """Each behaviour with each of its vectors, and each steering term."""
    terms = persona.steering.terms.items()
    return {(name, term.vector) for name, one in persona.behaviours.items() for term in one.terms} | {
        (f"steering {name}", vector) for name, term in terms for vector in term.vectors
    }


def _names(entry: LogEntry, vector: str) -> list[str]:
    """The behaviours and steering terms of a commit that have the vector, sorted."""
    return sorted(name for name, used in _in_use(entry.persona) if used == vector)
