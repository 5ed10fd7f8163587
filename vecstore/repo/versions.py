"""The versions of a behaviour: each vector that it has had, in the order they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UnknownBehaviour
from pv.registry.history.log import LogEntry
from pv.registry.persona import Behaviour, Term
from pv.vecstore.repo.stored_vector import StoredVector, stored_vector

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["Version", "versions"]


@dataclass(frozen=True, slots=True)
class Version:
    """A behaviour as a commit first had it: `number` counts its vectors from 1, in the order they came.

    `now` is where it is current: branches and tags (refs/heads/main) with the weight that it has there. `again` are
    later commits that put it back, or brought it in on another line of history; newest first.
    """

    number: int
    entry: LogEntry
    behaviour: Behaviour
    vectors: tuple[StoredVector, ...]
    now: Mapping[str, float]
    again: tuple[LogEntry, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "number": self.number,
            "commit": self.entry.id,
            "author": {"name": self.entry.author, "email": self.entry.email},
            "time": self.entry.time.isoformat(),
            "message": self.entry.message,
            "behaviour": self.behaviour.to_json(),
            "vectors": [vector.to_json() for vector in self.vectors],
            "now": dict(self.now),
        }


def versions(repo: Reading, behaviour: str, revision: str = "HEAD", *, all: bool = False) -> list[Version]:
    """The versions of a behaviour in what leads to a revision, or to any branch and tag; newest first.

    A weight, or factors of modules, make no new version; other terms do. What comes back by a revert is the
    version that it was. Raises UnknownBehaviour if there never was one.
    """
    registry = repo.registry
    everywhere = registry.log(all=True)
    entries = everywhere if all else registry.log(revision)
    first: dict[tuple[Term, ...], tuple[LogEntry, Behaviour]] = {}
    again: dict[tuple[Term, ...], list[LogEntry]] = {}
    had = {entry.id: _terms(entry, behaviour) for entry in everywhere + entries}
    for entry in reversed(entries):
        if (found := entry.persona.behaviours.get(behaviour)) is None:
            continue
        if found.terms not in first:
            first[found.terms] = entry, found
        elif not any(had.get(parent) == found.terms for parent in entry.parents):
            again.setdefault(found.terms, []).insert(0, entry)
    if not first:
        where = "anywhere in the history" if all else f"in what leads to {revision[:80]}"
        raise UnknownBehaviour(
            f"no behaviour {behaviour[:80]!r} {where}",
            hint=_where_it_is(behaviour, everywhere, entries[0].id if entries and not all else None),
        )
    now: dict[tuple[Term, ...], dict[str, float]] = {}
    for entry in everywhere:
        if entry.refs and (found := entry.persona.behaviours.get(behaviour)) is not None:
            now.setdefault(found.terms, {}).update(dict.fromkeys(entry.refs, found.weight))
    return [
        Version(
            number,
            entry,
            known,
            tuple(
                stored_vector(
                    registry, entry.id, term.vector, behaviour, _later(again.get(terms, ()), behaviour)
                )
                for term in known.terms
            ),
            now.get(terms, {}),
            tuple(again.get(terms, ())),
        )
        for number, (terms, (entry, known)) in reversed(list(enumerate(first.items(), 1)))
    ]


def _terms(entry: LogEntry, behaviour: str) -> tuple[Term, ...] | None:
    found = entry.persona.behaviours.get(behaviour)
    return None if found is None else found.terms


def _later(entries: Sequence[LogEntry], behaviour: str) -> list[tuple[str, str]]:
    """The oldest first."""
    return [(entry.id, behaviour) for entry in reversed(entries)]


def _where_it_is(behaviour: str, entries: list[LogEntry], asked: str | None) -> str:
    """`asked`: the commit in whose history it is not."""
    later = {asked}
    for entry in reversed(entries):
        if later.intersection(entry.parents):
            later.add(entry.id)
            if behaviour in entry.persona.behaviours:
                return f"a later commit brought it: pv show {entry.id[:12]}:{behaviour}"
    names = sorted({name for entry in entries for name in entry.persona.behaviours})
    if behaviour in names:
        return f"other branches have it: pv log --all --behaviour {behaviour}"
    if not names:
        return "there is none yet: pv train ROWS.jsonl --as NAME"
    return f"behaviours in this registry: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}"
