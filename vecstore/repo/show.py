"""show: anything that has a name or an id here: a commit, a behaviour, a vector.

    pv show REV | BEHAVIOUR | REV:BEHAVIOUR | ID        a name that is a revision and a behaviour is the revision

An ID is at least 4 digits of any id that pv prints: of a commit, or a vector (or the rows that it was trained
on), or of a persona, a build or a base, which show the newest commit that has it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry import ids
from pv.registry.changes import Change, changes
from pv.registry.errors import UnknownBehaviour, UnknownRevision
from pv.registry.history.log import LogEntry
from pv.registry.persona import Behaviour, Persona, as_written
from pv.registry.provenance import trained
from pv.vecstore.repo.commits import standing_first
from pv.vecstore.repo.names import behaviour_named
from pv.vecstore.repo.stored_vector import StoredVector, stored_vector
from pv.vecstore.repo.vectors import KnownVector, vectors
from pv.vecstore.repo.versions import Version, versions
from pv.vecstore.vectors.origin import base_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.revision import Revision

__all__ = ["Shown", "ShownBehaviour", "show", "show_any"]

_ID = re.compile(r"[0-9a-f]{4,64}")


@dataclass(frozen=True, slots=True)
class Shown:
    """A commit. `before` is the persona of the first parent; of the first commit, its own without behaviours.

    `base` is its name and id in words. `found` says what else was asked for, if it was.
    """

    entry: LogEntry
    base: str
    vectors: tuple[StoredVector, ...]
    found: str | None = None

    @property
    def before(self) -> Persona:
        return self.entry.before or self.entry.persona.without_behaviours()

    @property
    def changes(self) -> tuple[Change, ...]:
        """What the commit changed in the persona."""
        return changes(self.before, self.entry.persona)

    def to_json(self) -> dict[str, Any]:
        entry = self.entry
        return {
            "id": entry.id,
            "parents": list(entry.parents),
            "message": entry.message,
            "time": entry.time.isoformat(),
            "author": {"name": entry.author, "email": entry.email},
            "changes": [change.to_json() for change in self.changes],
            "persona_id": entry.persona.id,
            "persona": entry.persona.to_json(),
            "provenance": {vector.id: vector.provenance.to_json() for vector in self.vectors},
        }


@dataclass(frozen=True, slots=True)
class ShownBehaviour:
    """A behaviour as a revision has it, and which of its versions that is; `versions` has all, newest first.

    `since` is the commit that made it this version there: the first that had it, or one that put it back.
    """

    name: str
    revision: str
    commit: str
    behaviour: Behaviour
    version: Version
    since: LogEntry
    versions: tuple[Version, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "behaviour",
            "name": self.name,
            "commit": self.commit,
            "behaviour": self.behaviour.to_json(),
            "version": self.version.number,
            "versions": [version.to_json() for version in self.versions],
        }


def show(revision: Revision, found: str | None = None) -> Shown:
    registry, commit = revision.registry, revision.commit
    entry = registry.log(commit, limit=1)[0]
    kept = tuple(stored_vector(registry, commit, vector) for vector in entry.persona.vectors)
    return Shown(entry, base_in_words(revision.base), kept, found)


def show_any(repo: Repo, text: str) -> Shown | ShownBehaviour | KnownVector:
    """What `text` names. Raises UnknownRevision, UnknownBehaviour."""
    try:
        asked = behaviour_named(repo, text)
        if asked is None:
            return show(repo.at(text))
    except UnknownRevision as error:
        found = _by_id(repo, text.lower()) if _ID.fullmatch(text.lower()) else None
        if found is None:
            raise _no_id(error) from error
        return found
    return _behaviour(repo, *asked)


def _no_id(error: UnknownRevision) -> UnknownRevision:
    """What to say of a name that nothing has, where an id may be given too."""
    if error.name is None:
        return error
    few = re.fullmatch("[0-9a-f]{1,3}", error.name.lower())
    return UnknownRevision(
        f"no branch, tag, commit, behaviour or id {error.name[:80]!r}",
        hint="an id takes at least 4 digits" if few else error.hint,
        name=error.name,
    )


def _behaviour(repo: Repo, revision: str, name: str) -> ShownBehaviour:
    at = repo.at(revision)
    known = versions(repo, name, revision)
    if name not in at.persona.behaviours:
        newest = known[0]
        raise UnknownBehaviour(
            f"no behaviour {name!r} in {revision} any more",
            hint=f"its newest version is of {newest.entry.id[:12]}: pv show {newest.entry.id[:12]}:{name}",
        )
    behaviour = at.persona.behaviour(name)
    version = next(one for one in known if one.behaviour.terms == behaviour.terms)
    since = _since(repo.registry.log(at.commit), name)
    return ShownBehaviour(name, revision, at.commit, behaviour, version, since, tuple(known))


def _since(entries: list[LogEntry], name: str) -> LogEntry:
    """The commit from which on the newest of `entries` has had these terms without a break."""
    known = {entry.id: entry for entry in entries}
    since = entries[0]
    terms = since.persona.behaviour(name).terms

    def has_them(commit: str) -> bool:
        found = known[commit].persona.behaviours.get(name)
        return found is not None and found.terms == terms

    while earlier := [parent for parent in since.parents if has_them(parent)]:
        since = known[earlier[0]]
    return since


def _by_id(repo: Repo, prefix: str) -> Shown | KnownVector | None:
    """What else has an id that begins so. Raises UnknownRevision if several do."""
    found: dict[str, KnownVector | tuple[str, str]] = {}
    for entry in standing_first(repo.registry):
        for identity, what in _ids_of(entry):
            if identity.startswith(prefix):
                found.setdefault(identity, (entry.id, what.format(identity[:12])))
    for known in vectors(repo) if not found or len(prefix) < 12 else []:
        run = trained(known.vector.provenance)
        for identity in (known.vector.id, run.data.id if run else ""):
            if identity.startswith(prefix):
                found.setdefault(identity, known)
    if len(found) > 1:
        longer = ", ".join(identity[: len(prefix) + 4] for identity in sorted(found)[:5])
        raise UnknownRevision(
            f"{prefix!r} is ambiguous: {len(found)} ids begin with it", hint=f"write more digits: {longer}"
        )
    for one in found.values():
        return one if isinstance(one, KnownVector) else show(repo.at(one[0]), one[1])
    return None


def _ids_of(entry: LogEntry) -> list[tuple[str, str]]:
    """(id, what it is) of a commit's persona and base, and of its builds in every dtype and rounding."""
    persona = entry.persona
    found = [(persona.id, "persona {}"), (persona.base, "base {}")]
    for written in as_written(persona):
        output = written.output
        how = "" if written is persona else f" (--dtype {output.dtype} --rounding {output.rounding})"
        found.append((ids.build_id(written.id, written.engine), f"build {{}}{how}"))
    return found
