"""Work that takes long, and ends in a commit: one way for all of it.

The branch is the one that was current when the work began, whatever is switched meanwhile. No lock is held. Every
pack that is written is held from the moment it has its name until a commit names it, so that no gc takes it.
The edit is applied to the newest persona of that branch, so that nobody's commit is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from pv.registry.errors import NotFoundError
from pv.registry.history.snapshot import NewVectors
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.registry import Registry
from pv.vecstore.repo.twice import counted_twice

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

    def manifests(self, commit: str, vectors: Iterable[str]) -> NewVectors:
        """Manifests and provenance of another commit's vectors: at hand even if that commit is gone by the end."""
        registry = self.registry
        return {v: (registry.vector(commit, v), registry.provenance(commit, v)) for v in vectors}

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
        terms: tuple[Term, ...],
        vectors: NewVectors,
        held: NewVectors | None = None,
    ) -> tuple[str, tuple[str, ...]]:
        """Commit the next version of a behaviour, or its first; the commit, and what to know of it."""
        found: list[Behaviour | None] = []
        notes: list[str] = []

        def edit(persona: Persona) -> Persona:
            found[:] = [persona.behaviours.get(name)]
            made = persona.with_terms(name, terms, weight)
            notes[:] = counted_twice(persona, made)
            return made

        commit = self.land(command, message, edit, vectors, held)
        if found[0] in (None, self.persona.behaviours.get(name)):
            return commit, tuple(notes)
        before = f"what was committed meanwhile is in {self.registry.parents(commit)[0][:12]}"
        return commit, (
            f"{name} was committed by another process too, and this replaces it: {before}",
            *notes,
        )

    def land(
        self,
        command: str,
        message: str,
        edit: Callable[[Persona], Persona],
        vectors: NewVectors,
        held: NewVectors | None = None,
    ) -> str:
        """Commit on that branch, as it is now; returns the commit. Raises what `edit` raises, and NotFoundError.

        `vectors` were made by this work; `held` are others' that the branch may not have.
        """
        self._tip()
        return self.registry.change(command, message, edit, vectors=vectors, held=held, branch=self.branch)

    def _tip(self) -> str:
        tip = self.registry.branches().get(self.branch)
        if tip is None:
            raise NotFoundError(
                f"branch {self.branch!r} is gone: it was deleted while this command ran",
                hint=f"`pv branch {self.branch} {self.commit[:12]}` brings it back; then run the command again",
            )
        return tip


@contextmanager
def long_work(repo: Repo, also: Iterable[str] = ()) -> Iterator[LongWork]:
    """Begin on the current branch; the vectors of the commits `also` are held too. Raises UnknownRevision."""
    registry = repo.registry
    head = registry.head()
    commit = head.commit or registry.resolve("HEAD")
    with ExitStack() as held:
        held.enter_context(registry.packs.holding_written())
        needed = {vector for one in (commit, *also) for vector in registry.persona(one).vectors}
        for vector in sorted(needed):  # another process may drop them, and collect
            if registry.packs.has(vector):
                held.enter_context(registry.packs.holding(vector))
        yield LongWork(registry, head.branch, commit)
