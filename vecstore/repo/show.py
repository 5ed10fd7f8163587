"""show: anything that has a name or an id here: a commit, a behaviour, a vector.

    pv show REV | BEHAVIOUR | REV:BEHAVIOUR | ID        a name that is a revision and a behaviour is the revision

An ID is at least 4 digits of any id that pv prints: of a commit, a vector, rows, or a probe; or of a persona, a build,
its weights, or a base, which show a commit that has it, and say which others do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pv.registry import ids
from pv.registry.changes import Change, changes
from pv.registry.errors import UnknownBehaviour, UnknownRevision
from pv.registry.history.log import LogEntry
from pv.registry.persona import Behaviour, Persona, as_written
from pv.registry.provenance import Derived, Trained
from pv.registry.provenance_ways import origins, ways
from pv.registry.registry import Registry
from pv.registry.words import revision_words
from pv.vecstore.repo.commits import named_history, standing_first
from pv.vecstore.repo.names import behaviour_named
from pv.vecstore.repo.probe.known import KnownProbe, known_probe
from pv.vecstore.repo.stored_vector import StoredVector, stored_vector
from pv.vecstore.repo.vectors import KnownVector, vectors
from pv.vecstore.repo.versions import Version, versions
from pv.vecstore.vectors.origin import base_in_words

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading
    from pv.vecstore.repo.revision import Revision

__all__ = ["Shown", "ShownBehaviour", "ShownRows", "show", "show_any"]

MOST = 4  # commits that are named; the first is shown
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


@dataclass(frozen=True, slots=True)
class ShownRows:
    """Rows, by the names that their file had: the vectors that were trained on them, and those measured on them."""

    id: str
    files: tuple[str, ...]
    kept: bool
    trained: tuple[KnownVector, ...]
    measured: tuple[KnownVector, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "rows",
            "id": self.id,
            "files": list(self.files),
            "kept": self.kept,
            "trained": [known.to_json() for known in self.trained],
            "measured": [known.to_json() for known in self.measured],
        }


def show(revision: Revision, found: str | None = None) -> Shown:
    registry, commit = revision.registry, revision.commit
    entry = registry.log(commit, limit=1)[0]
    kept = tuple(stored_vector(registry, commit, vector) for vector in entry.persona.vectors)
    return Shown(entry, base_in_words(revision.base), kept, found)


def show_any(repo: Reading, text: str) -> Shown | ShownBehaviour | ShownRows | KnownVector | KnownProbe:
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


def _behaviour(repo: Reading, revision: str, name: str) -> ShownBehaviour:
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


def _by_id(repo: Reading, prefix: str) -> Shown | ShownRows | KnownVector | KnownProbe | None:
    """What else has an id that begins so. Raises UnknownRevision if several do."""
    found: dict[str, KnownVector | ShownRows | KnownProbe | tuple[str, list[tuple[str, str]]]] = {}
    commits: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    history = standing_first(repo.registry)
    for commit, name, persona in named_history(repo.registry, history):
        for identity, what in _ids_of(repo.registry, persona):
            if identity.startswith(prefix):
                of = commits.setdefault(identity, (what.format(identity[:12]), []))[1]
                of += [] if (commit, name) in of else [(commit, name)]  # two dtypes may give the same weights
    found |= commits
    for known in vectors(repo) if not found or len(prefix) < 12 else []:
        if known.vector.id.startswith(prefix):
            found[known.vector.id] = known
        for rows in _rows_of(known):
            if rows.id.startswith(prefix):
                before = found.get(rows.id)
                found[rows.id] = _both(before, rows) if isinstance(before, ShownRows) else rows
    records = [identity for identity in repo.registry.record_ids() if identity.startswith(prefix)]
    for identity in records:
        probe = known_probe(repo.registry, identity)
        if probe is not None:
            found[identity] = probe
    for identity in records if not found else ():
        repo.registry.record(identity)  # one that is damaged says so
    if len(found) > 1:
        longer = ", ".join(identity[: len(prefix) + 4] for identity in sorted(found)[:5])
        raise UnknownRevision(
            f"{prefix!r} is ambiguous: {len(found)} ids begin with it", hint=f"write more digits: {longer}"
        )
    for one in found.values():
        if isinstance(one, ShownRows):
            return replace(one, kept=repo.registry.packs.has(one.id))
        return (
            one if isinstance(one, KnownVector | KnownProbe) else show(repo.at(one[1][0][0]), _belongs(*one))
        )
    return None


def _belongs(what: str, commits: list[tuple[str, str]]) -> str:
    """`build 0123456789ab is that of both (0123456789ab) and of 4c7f6002095a`, of which the first is shown."""
    listed = " and of ".join(revision_words(name, commit) for commit, name in commits[:MOST])
    more = len(commits) - MOST
    rest = f" and {more} more commit{'' if more == 1 else 's'}" if more > 0 else ""
    return f"{what} is that of {listed}{rest}"


def _rows_of(known: KnownVector) -> Iterator[ShownRows]:
    """The rows that a vector was trained on, and those that it was measured on."""
    provenance = known.vector.provenance
    for run in origins(provenance):
        if isinstance(run, Trained) and run.data.id:
            yield ShownRows(run.data.id, (run.data.name,), False, (known,), ())
    ran = [run.held_out for run in origins(provenance) if isinstance(run, Trained)]
    for score in (*ran, *(way.measured for way in ways(provenance) if isinstance(way, Derived))):
        match score:
            case {"data_id": str(rows), "data": str(name)}:
                yield ShownRows(rows, (name,), False, (), (known,))


def _both(one: ShownRows, other: ShownRows) -> ShownRows:
    def each(a: tuple[Any, ...], b: tuple[Any, ...]) -> tuple[Any, ...]:
        return (*a, *(x for x in b if x not in a))

    return ShownRows(
        one.id, each(one.files, other.files), False,
        each(one.trained, other.trained), each(one.measured, other.measured),
    )  # fmt: skip


def _ids_of(registry: Registry, persona: Persona) -> list[tuple[str, str]]:
    """(id, what it is) of a persona and its base, of its builds in every dtype and rounding, and of their weights."""
    found = [(persona.id, "persona {}"), (persona.base, "base {}")]
    for written in as_written(persona):
        output = written.output
        how = "" if written is persona else f" (--dtype {output.dtype} --rounding {output.rounding})"
        build = ids.build_id(written.recipe.id, written.engine)
        weights = registry.record(build).get("weights")
        found.append((build, f"build {{}}{how}"))
        if isinstance(weights, str) and weights != persona.base:
            found.append((weights, f"the weights {{}} of the build{how}"))
    return found
