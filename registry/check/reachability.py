"""What history reaches: every commit that some tips lead to, read in full, each document once.

It says which packs the commits need, and lists what cannot be read or is not as docs/FORMAT.md has it.
fsck reports those troubles; gc does nothing where there are any. Invariant: without troubles, `objects`
are all that the tips lead to, and `uses` names every pack that building any of the commits takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from pv.registry import canonical, ids, provenance
from pv.registry.errors import FormatError, PvError
from pv.registry.git.objects import Commit, TreeEntry
from pv.registry.git.repository import GitRepository
from pv.registry.history.snapshot import wrong_roles
from pv.registry.manifest import BaseManifest, VectorManifest, is_plain_file_name
from pv.registry.persona import Persona
from pv.registry.provenance import Provenance

__all__ = ["Reachable", "ReachedCommit", "Trouble", "Use", "reachable"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is wrong with one object of a commit. `vectors` are those it concerns; empty: all."""

    object: str
    what: str
    vectors: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ReachedCommit:
    """One commit. `persona` is None if it cannot be read."""

    id: str
    parents: tuple[str, ...]
    persona: Persona | None
    packs: frozenset[str]
    troubles: tuple[Trouble, ...]

    def behaviours(self, vectors: Iterable[str]) -> set[str]:
        """The behaviours that some vectors are part of, and terms as `steering NAME`; all, if no vector is given."""
        wanted = set(vectors)
        if self.persona is None:
            return set()
        named = {
            name
            for name, behaviour in self.persona.behaviours.items()
            if not wanted or any(term.vector in wanted for term in behaviour.terms)
        }
        terms = self.persona.steering.terms.items()
        return named | {f"steering {name}" for name, term in terms if not wanted or term.vectors & wanted}


@dataclass(slots=True)
class Use:
    """Who needs a pack; of each behaviour, the commit that was met first."""

    kind: str
    commits: list[str] = field(default_factory=list)
    behaviours: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reachable:
    commits: Mapping[str, ReachedCommit]
    objects: frozenset[str]
    uses: Mapping[str, Use]
    bases: Mapping[str, BaseManifest]
    provenance: Mapping[str, Provenance]


def reachable(
    history: GitRepository, tips: Iterable[str], progress: Callable[[int, int], None] | None = None
) -> Reachable:
    """Read everything that `tips` lead to. `progress` gets (commits read, commits known of)."""
    walker = _Walker(history)
    waiting, known = list(dict.fromkeys(tips)), set(tips)
    commits: dict[str, ReachedCommit] = {}
    while waiting:
        found = walker.commit(waiting.pop())
        commits[found.id] = found
        new = [parent for parent in found.parents if parent not in known]
        known.update(new)
        waiting += new
        if progress:
            progress(len(commits), len(known))
    return Reachable(commits, frozenset(walker.seen), walker.uses, walker.bases, walker.provenance)


class _Walker:
    def __init__(self, history: GitRepository) -> None:
        self.history = history
        self.seen: set[str] = set()
        self.uses: dict[str, Use] = {}
        self.bases: dict[str, BaseManifest] = {}
        self.provenance: dict[str, Provenance] = {}
        self._known: dict[tuple[str, str], Any] = {}
        self._troubles: list[Trouble] = []

    def commit(self, commit_id: str) -> ReachedCommit:
        self._troubles = []
        self.seen.add(commit_id)
        commit = self._once(commit_id, "commit", self.history.commit, commit_id[:12])
        if commit is None:
            return ReachedCommit(commit_id, (), None, frozenset(), tuple(self._troubles))
        persona, packs = self._tree(commit)
        found = ReachedCommit(commit_id, commit.parents, persona, frozenset(packs), tuple(self._troubles))
        for pack_id, (kind, vectors) in packs.items():
            use = self.uses.setdefault(pack_id, Use(kind))
            use.commits.append(commit_id)
            for name in sorted(found.behaviours(vectors)):
                use.behaviours.setdefault(name, commit_id)
        return found

    def _tree(self, commit: Commit) -> tuple[Persona | None, dict[str, tuple[str, set[str]]]]:
        """The persona, and the packs that it needs: {id: (kind, vectors for whose sake; empty: all)}."""
        root = self._folder(TreeEntry(commit.tree, folder=True), "its tree")
        self._names(commit.tree, root, {"persona.json", "base"}, {"vectors", "provenance"}, "its tree")
        persona = self._document(root.get("persona.json"), "persona.json", Persona.from_bytes)
        base = self._base(root.get("base"))
        packs: dict[str, tuple[str, set[str]]] = {}
        if base is not None and base.pinned:
            packs[base.id] = ("base", set())
        if persona is not None and base is not None and persona.base != base.id:
            self._trouble(
                commit.tree, f"its persona stands on base {persona.base[:12]}, base.json is another"
            )
        manifests = self._folder(root.get("vectors"), "vectors")
        origins = self._folder(root.get("provenance"), "provenance")
        for what, folder in (("vectors", manifests), ("provenance", origins)):
            wanted = {f"{v}.json" for v in persona.vectors} if persona else set(folder)
            self._names(commit.tree, folder, wanted, set(), what)
        known: dict[str, VectorManifest] = {}
        for name in sorted(manifests.keys() & origins.keys()):
            vector = name.removesuffix(".json")
            if not ids.is_id(vector):
                continue  # named above
            packs.setdefault(vector, ("vector", set()))[1].add(vector)
            manifest = self._document(
                manifests[name], f"vectors/{name}", VectorManifest.from_bytes, vectors={vector}
            )
            if manifest is not None and manifest.id != vector:
                self._trouble(
                    manifests[name].id, f"vectors/{name} is the manifest of another vector", {vector}
                )
            if manifest is not None:
                known[vector] = manifest
            if manifest is not None and persona is not None and manifest.base != persona.base:
                self._trouble(manifests[name].id, f"vectors/{name} was measured from another base", {vector})
            for pack_id in self._provenance(vector, origins[name]):
                packs.setdefault(pack_id, ("rows", set()))[1].add(vector)
        if persona is not None:
            for vector, what in wrong_roles(persona.task_vectors, persona.steering.terms, known).items():
                self._trouble(commit.tree, what, {vector})
        return persona, packs

    def _base(self, entry: TreeEntry | None) -> BaseManifest | None:
        folder = self._folder(entry, "base")
        base = self._document(folder.get("base.json"), "base/base.json", BaseManifest.from_bytes)
        files = self._folder(folder.get("files"), "base/files")
        if entry is not None and base is not None:
            self._names(entry.id, folder, {"base.json"}, {"files"}, "base")
            self._names(entry.id, files, set(base.files), set(), "base/files")
            self.bases.setdefault(base.id, base)
        for name, file in files.items():
            if file.folder or not is_plain_file_name(name):
                self._trouble(file.id, f"base/files/{name[:80]} cannot be a file of the base")
            else:
                self._blob(file, f"base/files/{name}")
        return base

    def _provenance(self, vector: str, entry: TreeEntry) -> tuple[str, ...]:
        """The packs that a provenance document lists."""
        what = f"provenance/{vector}.json"
        origin = self._document(entry, what, provenance.checked, vectors={vector})
        if origin is None:
            return ()
        self.provenance.setdefault(vector, origin)
        return origin.packs

    # What is read, once, and what is wrong with it

    def _names(self, tree: str, found: Iterable[str], needed: set[str], allowed: set[str], what: str) -> None:
        names = set(found)
        for name in sorted(needed - names):
            self._trouble(tree, f"{what} lacks {name}", _vector_of(name))
        for name in sorted(names - needed - allowed):
            self._trouble(tree, f"{what} holds {name[:80]!r}, which does not belong there")

    def _folder(self, entry: TreeEntry | None, what: str) -> Mapping[str, TreeEntry]:
        if entry is None:
            return {}
        self.seen.add(entry.id)
        if not entry.folder:
            self._trouble(entry.id, f"{what} is not a folder")
            return {}
        return self._once(entry.id, "tree", self.history.tree, what) or {}

    def _blob(self, entry: TreeEntry, what: str) -> None:
        self.seen.add(entry.id)
        self._once(entry.id, "blob", self._exists, what)

    def _exists(self, object_id: str) -> bool:
        self.history.blob(object_id)
        return True

    def _document(
        self,
        entry: TreeEntry | None,
        what: str,
        parse: Callable[[bytes, str], T],
        *,
        vectors: set[str] | None = None,
    ) -> T | None:
        """A blob as what it means, or None: with trouble noted, unless it is not there at all."""
        if entry is None:
            return None
        self.seen.add(entry.id)

        def read(object_id: str) -> T:
            data = self.history.blob(object_id)
            parsed = parse(data, what)
            if canonical.dumps(canonical.loads(data)) != data:
                raise FormatError(f"{what} is not in canonical form")
            return parsed

        return self._once(entry.id, what, read, what, vectors)

    def _once(
        self,
        object_id: str,
        role: str,
        read: Callable[[str], T],
        what: str,
        vectors: set[str] | None = None,
    ) -> T | None:
        key = (object_id, role)
        if key not in self._known:
            try:
                self._known[key] = read(object_id)
            except PvError as error:
                self._known[key] = error
        found = self._known[key]
        if isinstance(found, PvError):
            said = str(found)
            self._trouble(object_id, said if what in said else f"{what}: {said}", vectors)
            return None
        return found  # type: ignore[no-any-return]

    def _trouble(self, object_id: str, what: str, vectors: Iterable[str] | None = None) -> None:
        self._troubles.append(Trouble(object_id, what, frozenset(vectors or ())))


def _vector_of(name: str) -> set[str]:
    vector = name.removesuffix(".json")
    return {vector} if ids.is_id(vector) else set()
