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
from pv.registry.persona import Persona
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

    def land(
        self, command: str, message: str, edit: Callable[[Persona], Persona], vectors: NewVectors
    ) -> str:
        """Commit on that branch, as it is now; returns the commit. Raises what `edit` raises, and NotFoundError."""
        if self.branch not in self.registry.branches():
            raise NotFoundError(
                f"branch {self.branch!r} is gone: it was deleted while this was at work",
                hint=f"bring it back with `pv branch {self.branch} {self.commit[:12]}`, and run the command again",
            )
        return self.registry.change(command, message, edit, vectors=vectors, branch=self.branch)


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
