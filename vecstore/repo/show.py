"""show: one commit, its persona, what changed in it, and where its vectors came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.history.log import LogEntry
from pv.registry.persona import Behaviour
from pv.registry.provenance import Provenance
from pv.vecstore.vectors.origin import base_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Shown", "ShownVector", "show"]


@dataclass(frozen=True, slots=True)
class ShownVector:
    """`stored_bytes` is None if its pack is not here."""

    id: str
    encoding: str
    stored_bytes: int | None
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Shown:
    """`before` are the behaviours of the first parent, `base` the name and id of the base."""

    entry: LogEntry
    base: str
    before: dict[str, Behaviour]
    vectors: tuple[ShownVector, ...]

    def to_json(self) -> dict[str, Any]:
        entry = self.entry
        return {
            "id": entry.id,
            "parents": list(entry.parents),
            "message": entry.message,
            "time": entry.time.isoformat(),
            "author": {"name": entry.author, "email": entry.email},
            "persona_id": entry.persona.id,
            "persona": entry.persona.to_json(),
            "provenance": {vector.id: vector.provenance.to_json() for vector in self.vectors},
        }


def show(revision: Revision) -> Shown:
    registry, commit = revision.registry, revision.commit
    entry = registry.log(commit, limit=1)[0]
    before = dict(registry.persona(entry.parents[0]).behaviours) if entry.parents else {}
    vectors = tuple(
        ShownVector(
            vector,
            registry.vector(commit, vector).encoding,
            registry.packs.size(vector) if registry.packs.has(vector) else None,
            registry.provenance(commit, vector),
        )
        for vector in entry.persona.vectors
    )
    return Shown(entry, base_in_words(revision.base), before, vectors)
