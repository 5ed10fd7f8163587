"""What a commit's tree holds, and how it is written and read back.

    persona.json                the persona, canonical JSON
    base/base.json              the base manifest
    base/files/<name>           config, tokenizer, chat template: bytes
    vectors/<vector id>.json    one manifest for every vector that the persona names, of behaviours or of steering terms
    provenance/<vector id>.json where that vector came from: any JSON object

Invariant: a tree is closed. With the packs of its vectors, and the base, it is enough to build from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pv.registry import canonical, ids, provenance, provenance_ways
from pv.registry.errors import BaseMismatch, FormatError, IntegrityError, NotFoundError, UsageError
from pv.registry.git.objects import TreeEntry
from pv.registry.git.repository import GitRepository
from pv.registry.manifest import BaseManifest, VectorManifest, is_plain_file_name
from pv.registry.persona import Persona
from pv.registry.provenance import Provenance
from pv.registry.steering import SteeringTerm

__all__ = ["NewVectors", "Snapshot", "write_base", "write_snapshot", "wrong_roles"]

NewVectors = Mapping[str, tuple[VectorManifest, Provenance]]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One commit, read piece by piece. Everything read is validated, and its id checked."""

    history: GitRepository
    commit: str

    def persona(self) -> Persona:
        what = f"persona.json of {self.commit[:12]}"
        return Persona.from_bytes(self.history.read_blob(self.commit, "persona.json"), what)

    def base(self) -> BaseManifest:
        what = f"base.json of {self.commit[:12]}"
        return BaseManifest.from_bytes(self.history.read_blob(self.commit, "base/base.json"), what)

    def base_entry(self) -> TreeEntry:
        return self._entry("base")

    def base_files(self) -> dict[str, bytes]:
        """The side files of the base, by name."""
        entry = self.history.entry(self.commit, "base/files")
        if entry is None:
            return {}
        files = self.history.tree(entry.id)
        for name, file in files.items():
            if file.folder or not is_plain_file_name(name):
                raise FormatError(f"commit {self.commit[:12]}: {name[:80]!r} cannot be a file of the base")
        return {name: self.history.blob(file.id) for name, file in files.items()}

    def vector(self, vector_id: str) -> VectorManifest:
        """Raises NotFoundError, or IntegrityError if the manifest is another vector's."""
        path = f"vectors/{ids.check_id(vector_id, 'vector id')}.json"
        what = f"{path} of {self.commit[:12]}"
        manifest = VectorManifest.from_bytes(self.history.read_blob(self.commit, path), what)
        if manifest.id != vector_id:
            raise IntegrityError(f"{what} is the manifest of vector {manifest.id[:12]}", hint="run `pv fsck`")
        return manifest

    def provenance(self, vector_id: str) -> Provenance:
        path = f"provenance/{ids.check_id(vector_id, 'vector id')}.json"
        data = self.history.read_blob(self.commit, path)
        return provenance.from_bytes(data, f"{path} of {self.commit[:12]}")

    def entries(self, vector_id: str) -> tuple[TreeEntry, TreeEntry] | None:
        """The blobs of a vector's manifest and provenance, or None if this commit does not have it."""
        manifest = self.history.entry(self.commit, f"vectors/{vector_id}.json")
        origin = self.history.entry(self.commit, f"provenance/{vector_id}.json")
        return None if manifest is None or origin is None else (manifest, origin)

    def _entry(self, path: str) -> TreeEntry:
        entry = self.history.entry(self.commit, path)
        if entry is None:
            raise NotFoundError(f"commit {self.commit[:12]} has no {path}", hint="run `pv fsck`")
        return entry


def write_base(history: GitRepository, manifest: BaseManifest, files: Mapping[str, bytes]) -> TreeEntry:
    """The folder `base`. Raises UsageError unless `files` are those that the manifest lists."""
    if sorted(files) != sorted(manifest.files):
        raise UsageError(
            f"the base manifest lists the files {list(manifest.files)}, given are {sorted(files)}"
        )
    entries = {"base.json": TreeEntry(history.write_blob(manifest.to_bytes()))}
    if files:
        for name in files:
            if not is_plain_file_name(name):
                raise FormatError(f"{name[:80]!r} cannot be a file of the base")
        inner = {name: TreeEntry(history.write_blob(data)) for name, data in files.items()}
        entries["files"] = TreeEntry(history.write_tree(inner), folder=True)
    return TreeEntry(history.write_tree(entries), folder=True)


def write_snapshot(
    history: GitRepository,
    persona: Persona,
    base: TreeEntry,
    sources: Iterable[Snapshot],
    new: NewVectors,
    held: NewVectors,
) -> str:
    """The tree for `persona`; manifests come from `sources` (the first that has it), then from `new` and `held`.

    What several of them know of where a vector came from is kept, all of it: see `provenance_ways.together`.

    Raises NotFoundError if the persona names a vector that is in none of them, BaseMismatch if one was
    measured from another base, UsageError for a persona that could not be read again, or names a vector for what
    it is not.
    """
    persona.checked()
    sources = list(sources)
    _check_roles(persona, sources, {**held, **new})
    manifests: dict[str, TreeEntry] = {}
    origins: dict[str, TreeEntry] = {}
    for vector_id in persona.vectors:
        here = [(source, found) for source in sources if (found := source.entries(vector_id)) is not None]
        for source, _ in here:
            _check_base(source, persona, base, vector_id)
        if here:
            manifest, origin = here[0][1]
            others = [source for source, found in here[1:] if found[1] != origin]
            if others or vector_id in new:
                origin = _all_origins(history, persona, vector_id, [here[0][0], *others], new)
            found = manifest, origin
        else:
            found = _write_vector(history, persona, vector_id, {**held, **new})
        manifests[f"{vector_id}.json"], origins[f"{vector_id}.json"] = found
    entries = {"persona.json": TreeEntry(history.write_blob(persona.to_bytes())), "base": base}
    if manifests:
        entries["vectors"] = TreeEntry(history.write_tree(manifests), folder=True)
        entries["provenance"] = TreeEntry(history.write_tree(origins), folder=True)
    return history.write_tree(entries)


def _check_roles(persona: Persona, sources: list[Snapshot], new: NewVectors) -> None:
    """What no commit at hand has in that role already: a behaviour's vectors are task vectors, a term's steer there."""
    before = [source.persona() for source in sources]
    fresh = set(persona.task_vectors).difference(*(one.task_vectors for one in before))
    terms = {
        name: term
        for name, term in persona.steering.terms.items()
        if not any(_applied(one.steering.terms.get(name)) == _applied(term) for one in before)
    }
    needed = fresh.union(*(term.vectors for term in terms.values()))
    manifests = {vector: m for vector in needed if (m := _manifest(vector, sources, new)) is not None}
    wrong = wrong_roles(fresh, terms, manifests)
    if wrong:
        raise UsageError(min(wrong.values()), hint="`pv vectors` lists the vectors, and what each is")


def wrong_roles(
    task: Iterable[str], terms: Mapping[str, SteeringTerm], manifests: Mapping[str, VectorManifest]
) -> dict[str, str]:
    """{vector id: what is wrong} where a persona names a vector for what its manifest says it is not."""
    wrong = {
        vector: f"vector {vector[:12]} is a steering vector: no behaviour can be made of it"
        for vector in task
        if vector in manifests and manifests[vector].is_steering
    }
    for name, term in terms.items():
        looked_at = [] if term.when is None else [(term.when.vector, (term.when.site,))]
        for vector, sites in [(term.vector, term.sites or ()), *looked_at]:
            if vector not in manifests:
                continue
            if not manifests[vector].is_steering:
                wrong[vector] = (
                    f"vector {vector[:12]} is a task vector: the steering term {name} cannot be made of it"
                )
            elif lacking := [site for site in sites if site not in manifests[vector].tensors]:
                wrong[vector] = (
                    f"steering term {name}: vector {vector[:12]} has no direction at {lacking[0][:80]!r}"
                )
    return wrong


def _applied(term: SteeringTerm | None) -> object:
    return None if term is None else (term.vector, term.sites, term.when)


def _manifest(vector_id: str, sources: list[Snapshot], new: NewVectors) -> VectorManifest | None:
    if vector_id in new:
        return new[vector_id][0]
    found = next((source for source in sources if source.entries(vector_id) is not None), None)
    return None if found is None else found.vector(vector_id)


def _all_origins(
    history: GitRepository, persona: Persona, vector_id: str, sources: list[Snapshot], new: NewVectors
) -> TreeEntry:
    """What each source knows of where a vector came from, and what is new, in one document."""
    first = sources[0]
    known, before = first.provenance(vector_id), first.persona()
    for other in sources[1:]:
        known = provenance_ways.together(
            known, other.provenance(vector_id), _new_in(before, other.persona(), vector_id)
        )
    if vector_id in new:
        manifest, origin = new[vector_id]
        _check_new(vector_id, manifest, persona)
        known = provenance_ways.together(known, origin, _new_in(before, persona, vector_id))
    return TreeEntry(history.write_blob(canonical.dumps(known.to_json())))


def _new_in(before: Persona, after: Persona, vector_id: str) -> str | None:
    """The behaviour that has the vector, and did not have these terms before; of a steering vector, its term."""
    for name, one in sorted(after.behaviours.items()):
        had = before.behaviours.get(name)
        if (had is None or had.terms != one.terms) and any(term.vector == vector_id for term in one.terms):
            return name
    for name, steering in sorted(after.steering.terms.items()):
        known = before.steering.terms.get(name)
        if steering.vector == vector_id and (known is None or known.vector != vector_id):
            return name
    return None


def _check_base(source: Snapshot, persona: Persona, base: TreeEntry, vector_id: str) -> None:
    if source.base_entry() == base:
        return
    theirs = source.persona().base  # another tree may be the same base, with another origin
    if theirs != persona.base:
        raise _other_base(vector_id, theirs, persona)


def _other_base(vector_id: str, theirs: str, persona: Persona) -> BaseMismatch:
    return BaseMismatch(
        f"vector {vector_id[:12]} was measured from base {theirs[:12]}, "
        f"the persona stands on {persona.base[:12]}",
        hint="capture or train it again on this base",
    )


def _write_vector(
    history: GitRepository, persona: Persona, vector_id: str, new: NewVectors
) -> tuple[TreeEntry, TreeEntry]:
    if vector_id not in new:
        raise NotFoundError(
            f"the persona names vector {vector_id[:12]}, and no commit at hand has its manifest",
            hint="commit the vector first, or name the revision that has it",
        )
    manifest, origin = new[vector_id]
    _check_new(vector_id, manifest, persona)
    return (
        TreeEntry(history.write_blob(manifest.to_bytes())),
        TreeEntry(history.write_blob(canonical.dumps(origin.to_json()))),
    )


def _check_new(vector_id: str, manifest: VectorManifest, persona: Persona) -> None:
    if manifest.id != vector_id:
        raise IntegrityError(f"a manifest of vector {manifest.id[:12]} was given as {vector_id[:12]}")
    if manifest.base != persona.base:
        raise _other_base(vector_id, manifest.base, persona)
