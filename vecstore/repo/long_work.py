"""Work that takes long, and ends in a commit: one way for all of it.

The branch is the one that was current when the work began, whatever is switched meanwhile. No lock is held. Every
pack that is written is held from the moment it has its name until a commit names it, so that no gc takes it.
The edit is applied to the newest persona of that branch, so that nobody's commit is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pv.registry.errors import NotFoundError
from pv.registry.history.snapshot import NewVectors
from pv.registry.manifest import VectorManifest
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.provenance import Provenance
from pv.registry.registry import Registry

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["LongWork", "long_work"]


@dataclass(frozen=True)
class LongWork:
    """Where the work began: a branch, the commit that it was at, and the persona of that commit."""

    registry: Registry
    branch: str
    commit: str

    @cached_property
    def persona(self) -> Persona:
        return self.registry.persona(self.commit)

    def check(self, name: str, weight: float | None) -> None:
        """Refuse, before any work, what could not be committed after it. Raises UsageError."""
        self.persona.with_terms(name, (Term(1.0, "0" * 64),), weight).checked()

    def newest(self) -> tuple[str, Persona]:
        """The branch's tip now, and its persona. Raises NotFoundError if the branch is gone."""
        commit = self._tip()
        return commit, self.registry.persona(commit)

    def land_version(
        self,
        command: str,
        message: str,
        name: str,
        weight: float | None,
        manifest: VectorManifest,
        origin: Provenance,
    ) -> tuple[str, tuple[str, ...]]:
        """Commit a vector as the next version of a behaviour, or its first; the commit, and what to know of it."""
        found: list[Behaviour | None] = []

        def edit(persona: Persona) -> Persona:
            found[:] = [persona.behaviours.get(name)]
            return persona.with_terms(name, (Term(1.0, manifest.id),), weight)

        commit = self.land(command, message, edit, {manifest.id: (manifest, origin)})
        if found[0] in (None, self.persona.behaviours.get(name)):
            return commit, ()
        before = f"what was committed meanwhile is in {self.registry.parents(commit)[0][:12]}"
        return commit, (f"{name} was committed by another process too, and this replaces it: {before}",)

    def land(
        self, command: str, message: str, edit: Callable[[Persona], Persona], vectors: NewVectors
    ) -> str:
        """Commit on that branch, as it is now; returns the commit. Raises what `edit` raises, and NotFoundError."""
        self._tip()
        return self.registry.change(command, message, edit, vectors=vectors, branch=self.branch)

    def _tip(self) -> str:
        tip = self.registry.branches().get(self.branch)
        if tip is None:
            raise NotFoundError(
                f"branch {self.branch!r} is gone: it was deleted while this was at work",
                hint=f"`pv branch {self.branch} {self.commit[:12]}` brings it back; then run the command again",
            )
        return tip


@contextmanager
def long_work(repo: Repo) -> Iterator[LongWork]:
    """Begin on the current branch. Raises UnknownRevision if it has no commit yet."""
    registry = repo.registry
    head = registry.head()
    commit = head.commit or registry.resolve("HEAD")
    with ExitStack() as held:
        held.enter_context(registry.packs.holding_written())
        for vector in registry.persona(commit).vectors:  # another process may drop them, and collect
            if registry.packs.has(vector):
                held.enter_context(registry.packs.holding(vector))
        yield LongWork(registry, head.branch, commit)
