"""A vector as a commit has it: how it is kept, how it was made, and what was measured of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from pv.registry.provenance import Captured, Derived, Extracted, Imported, Merged, Provenance, Trained
from pv.registry.provenance_ways import as_behaviour, together
from pv.registry.registry import Registry
from pv.vecstore.publish.words import Effect
from pv.vecstore.repo.effects import own_effect

__all__ = ["StoredVector", "stored_vector"]


@dataclass(frozen=True, slots=True)
class StoredVector:
    """`stored_bytes` is None if its pack is not here."""

    id: str
    encoding: str
    stored_bytes: int | None
    provenance: Provenance

    @property
    def how(
        self,
    ) -> Literal["trained", "captured", "compressed", "merged", "extracted", "imported", "unknown"]:
        """How it was made."""
        match self.provenance:
            case Trained():
                return "trained"
            case Captured():
                return "captured"
            case Derived():
                return "compressed"
            case Merged():
                return "merged"
            case Extracted():
                return "extracted"
            case Imported():
                return "imported"
        return "unknown"

    @property
    def effect(self) -> Effect | None:
        """What was measured of this very vector: not what was of the one that it was made from."""
        return own_effect(self.provenance)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "encoding": self.encoding,
            "stored_bytes": self.stored_bytes,
            "how": self.how,
            "effect": None if self.effect is None else self.effect.to_json(),
            "provenance": self.provenance.to_json(),
        }


def stored_vector(
    registry: Registry,
    commit: str,
    vector: str,
    name: str | None = None,
    later: Iterable[tuple[str, str]] = (),
) -> StoredVector:
    """A vector, and what a commit knows of where it came from: as the behaviour `name` first.

    `later`: other commits, the oldest first, and behaviours that came to be this vector there.

    Raises NotFoundError if a commit does not have it.
    """
    size = registry.packs.size(vector) if registry.packs.has(vector) else None
    encoding = registry.vector(commit, vector).encoding
    known = registry.provenance(commit, vector)
    for other, behaviour in later:
        known = together(known, registry.provenance(other, vector), behaviour)
    return StoredVector(vector, encoding, size, known if name is None else as_behaviour(known, name))
