"""One change of the registry, under its locks.

    .pv/lock       shared until the refs have moved; gc takes it alone
    .pv/refs.lock  alone, while refs are read, an operation is appended and the refs are moved; and before them
                   `.pv/format`, where a commit has steering terms

Invariant: inside a transaction nobody else moves a ref, so what was read is still true when the refs
move. If the block raises, nothing has happened; objects already written are unreachable, and harmless.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pv.registry.disk import locks
from pv.registry.errors import NotFoundError, UsageError
from pv.registry.format_file import mark_steering
from pv.registry.git import refs
from pv.registry.git.objects import Author, RefChange, TreeEntry
from pv.registry.git.repository import GitRepository
from pv.registry.history import operations
from pv.registry.history.operations import Operation
from pv.registry.history.snapshot import NewVectors, Snapshot, write_snapshot
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona

__all__ = ["Transaction", "transaction"]


class Transaction:
    """The refs as they are now, and the changes to publish when the block ends."""

    def __init__(self, history: GitRepository, packs: PackStore) -> None:
        self.history = history
        self.packs = packs
        now = operations.view(history)
        self.refs, self.head = now.refs, now.head
        self.undoes: int | None = None
        self.operation: Operation | None = None
        self.steers = False
        self._head_before = self.head
        self._moved: dict[str, RefChange] = {}

    @property
    def changes(self) -> list[RefChange]:
        return list(self._moved.values())

    @property
    def head_moved(self) -> bool:
        return self.head != self._head_before

    def branch_ref(self, branch: str | None) -> str:
        """The ref of a branch, by default the current one. Raises NotFoundError."""
        if branch is None or refs.HEADS + branch == self.head:
            return self.head
        if refs.HEADS + branch not in self.refs:
            raise NotFoundError(f"no branch {branch!r}", hint="`pv branch` lists the branches")
        return refs.HEADS + branch

    def tip(self, ref: str) -> str:
        """The commit that a branch is at. Raises UsageError if it has none yet."""
        if ref not in self.refs:
            raise UsageError(
                f"branch {ref.removeprefix(refs.HEADS)} has no commit yet",
                hint="`pv init --base DIR_OR_HUB_ID` makes the first one",
            )
        return self.refs[ref]

    def move(self, ref: str, new: str | None) -> None:
        """Plan to move, create (if it is not there) or delete (`new` None) a ref. Raises UsageError."""
        old = self.refs.get(ref)
        if old is None:
            self._check_room(ref)
        if old != new:
            self._moved[ref] = RefChange(ref, old, new)

    def _check_room(self, ref: str) -> None:
        """A ref is a file: `a` and `a/b` cannot both be, nor, on some systems, `a` and `A`."""
        kind = "/".join(ref.split("/")[:2]) + "/"
        name = ref.removeprefix(kind)
        for other in self.refs:
            taken = other.removeprefix(kind)
            if not other.startswith(kind):
                continue
            if taken.casefold() == name.casefold():
                raise UsageError(
                    f"there is a {taken!r} already, which some systems cannot tell from {name!r}"
                )
            if name.startswith(f"{taken}/") or taken.startswith(f"{name}/"):
                raise UsageError(f"{name!r} and {taken!r} cannot both be: a name is a file or a folder")

    def commit(
        self,
        persona: Persona,
        message: str,
        parents: Sequence[str],
        *,
        base: TreeEntry,
        sources: Sequence[Snapshot] = (),
        new: NewVectors | None = None,
        held: NewVectors | None = None,
        author: Author | None = None,
    ) -> str:
        """Write a commit of `persona`. Its new vectors must be in the pack store already."""
        new, held = new or {}, held or {}
        for vector_id in persona.vectors:
            if (vector_id in new or vector_id in held) and not self.packs.has(vector_id):
                raise NotFoundError(
                    f"vector {vector_id[:12]} has a manifest but no pack", hint="write its pack first"
                )
        self.steers = self.steers or bool(persona.steering.terms)
        tree = write_snapshot(self.history, persona, base, sources, new, held)
        return self.history.commit_tree(tree, parents, message, author=author)


@contextlib.contextmanager
def transaction(root: Path, history: GitRepository, packs: PackStore, command: str) -> Iterator[Transaction]:
    """Take refs.lock, finish what a crash left, run the block, publish what it planned.

    The caller holds `lock`: it is a writer, or alone.
    """
    with locks.exclusive(root / "refs.lock") as lock:
        operations.recover(history, lock)
        plan = Transaction(history, packs)
        yield plan
        if plan.changes or plan.head_moved or plan.undoes is not None:
            if plan.steers:
                mark_steering(root)
            plan.operation = operations.publish(
                history, command, plan.changes, head=plan.head, undoes=plan.undoes, lock=lock
            )
