"""The registry: one facade over packs, history, operations and locks.

Invariant: whatever moves a ref goes through a transaction, which holds the locks, finishes what a crash
left undone, and publishes the change as one operation. So no update is lost: an edit is applied to the
tip of the branch, read while nobody else can move it.

    with Registry.find(Path.cwd()) as registry:
        registry.change("scale listening 0.5", "Listen half as much", half)
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pv.registry import layout
from pv.registry.base_places import BasePlaces
from pv.registry.build_cache import BYTES, BuildCache
from pv.registry.build_records import RecordStore
from pv.registry.built_folders import BuiltFolders
from pv.registry.combine import Combine
from pv.registry.disk import locks
from pv.registry.disk.closing import Closing
from pv.registry.errors import BaseMismatch, NotFoundError, UsageError
from pv.registry.git import refs
from pv.registry.git.objects import Author
from pv.registry.git.repository import GitRepository
from pv.registry.history import merge, names, operations, revisions, undo
from pv.registry.history.log import LogEntry, read_log
from pv.registry.history.merge import MergeOutcome
from pv.registry.history.operations import Operation
from pv.registry.history.snapshot import NewVectors, Snapshot, write_base
from pv.registry.history.threeway import Take
from pv.registry.history.transaction import Transaction, transaction
from pv.registry.history.undo import WentBack
from pv.registry.manifest import BaseManifest, VectorManifest
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.provenance import Provenance
from pv.registry.unfinished_trainings import UnfinishedTrainings

__all__ = ["Head", "Registry"]


@dataclass(frozen=True, slots=True)
class Head:
    """The current branch, and the commit it is at (None before the first commit)."""

    branch: str
    commit: str | None


class Registry(Closing):
    """One `.pv` folder, opened. Close it, or use it in a `with`: it keeps a git process for reading."""

    def __init__(self, root: Path, *, cache_bytes: int = BYTES) -> None:
        self.root = layout.open_folder(root)
        self._inside = threading.local()
        self.packs = PackStore(self.root, writing=self.writing)
        self.history = GitRepository(self.root / "history.git")
        self.history.check_config()
        self.builds = BuildCache(self.root, cache_bytes)
        self.folders = BuiltFolders(self.root)
        self.trainings = UnfinishedTrainings(self.root)
        self._records = RecordStore(self.root)
        self.places = BasePlaces(self.root)
        """Where bases are on this machine that have moved."""

    @staticmethod
    def init(directory: Path) -> Registry:
        """Make a registry in `directory`; `start` makes its first commit. Raises UsageError."""
        with layout.creating(directory):
            pass
        return Registry(directory / layout.FOLDER)

    @staticmethod
    @contextlib.contextmanager
    def creating(directory: Path) -> Iterator[Registry]:
        """A registry that appears in `directory` when the block has ended well, complete or not at all.

        Write the base's pack and call `start` in the block; open it anew with `find` afterwards.
        """
        with layout.creating(directory) as root, Registry(root) as registry:
            yield registry
            if registry.head().commit is None:
                raise UsageError("a registry needs a first commit")

    @staticmethod
    def find(start: Path, *, cache_bytes: int = BYTES) -> Registry:
        """The registry of `start` or of the nearest folder above. Raises NotARegistry."""
        return Registry(layout.find(start), cache_bytes=cache_bytes)

    def close(self) -> None:
        self.history.close()

    # Reading: takes no lock, changes nothing

    def head(self) -> Head:
        now = operations.view(self.history)
        return Head(now.head.removeprefix(refs.HEADS), now.tip)

    def branches(self) -> dict[str, str]:
        return self._named(refs.HEADS)

    def tags(self) -> dict[str, str]:
        return self._named(refs.TAGS)

    def _named(self, folder: str) -> dict[str, str]:
        known = operations.view(self.history).refs
        return {ref.removeprefix(folder): c for ref, c in known.items() if ref.startswith(folder)}

    def resolve(self, revision: str | None) -> str:
        """The commit id that a revision means (None: HEAD). Raises UnknownRevision."""
        return revisions.resolve(self.history, "HEAD" if revision is None else revision)

    def snapshot(self, revision: str | None = None) -> Snapshot:
        return Snapshot(self.history, self.resolve(revision))

    def persona(self, revision: str | None = None) -> Persona:
        return self.snapshot(revision).persona()

    def base(self, revision: str | None = None) -> BaseManifest:
        return self.snapshot(revision).base()

    def base_files(self, revision: str | None = None) -> dict[str, bytes]:
        return self.snapshot(revision).base_files()

    def vector(self, revision: str | None, vector_id: str) -> VectorManifest:
        """A manifest; with no revision, HEAD's or else that of any commit which has it."""
        return self._holding(revision, vector_id).vector(vector_id)

    def provenance(self, revision: str | None, vector_id: str) -> Provenance:
        return self._holding(revision, vector_id).provenance(vector_id)

    def _holding(self, revision: str | None, vector_id: str) -> Snapshot:
        first = self.snapshot(revision)
        if revision is not None or first.entries(vector_id) is not None:
            return first
        for commit in self.history.walk(self._tips()):
            candidate = Snapshot(self.history, commit)
            if candidate.entries(vector_id) is not None:
                return candidate
        raise NotFoundError(f"no commit has vector {vector_id[:12]}", hint="`pv log --all` lists the commits")

    def parents(self, revision: str | None = None) -> tuple[str, ...]:
        return self.history.commit(self.resolve(revision)).parents

    def log(
        self,
        revision: str | None = None,
        *,
        all: bool = False,
        limit: int | None = None,
        keep: Callable[[LogEntry], bool] | None = None,
        lines_together: bool = False,
    ) -> list[LogEntry]:
        """Commits that lead to `revision` (default HEAD; or a range, `A..B`), or to any ref, newest first."""
        more: dict[str, Any] = {"keep": keep, "lines_together": lines_together}
        if all:
            return read_log(self.history, self._tips(), limit, **more)
        end, begin = revisions.resolve_range(self.history, revision or "HEAD")
        return read_log(self.history, [end], limit, without=[begin] if begin else [], **more)

    def _tips(self) -> list[str]:
        return [commit for ref, commit in operations.view(self.history).refs.items() if ref != refs.OPS]

    def operations(self, limit: int | None = None) -> list[Operation]:
        """What was done, newest first."""
        return list(undo.marked(self.history, limit))

    def record(self, build_id: str) -> dict[str, Any]:
        """What was measured about a build; empty if nothing was."""
        return self._records.read(build_id)

    def builds_with(self, weights: str) -> list[str]:
        """Build ids whose record says that they gave these weights."""
        return list(self._records.holding("weights", weights))

    def record_ids(self) -> list[str]:
        """Ids under which something was noted, sorted."""
        return list(self._records.ids())

    def record_path(self, build_id: str) -> Path:
        """The file of a build's record."""
        return self._records.path(build_id)

    def update_record(self, build_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Add facts about a build; returns all of them. Objects are merged one level deep, the rest replaced."""
        return self._records.update(build_id, facts)

    # Writing

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep gc away for a moment. May be nested.

        Not for long work: a gc that waits keeps every other writer out. What is written over a longer time is
        held by `packs.holding_written`.
        """
        if getattr(self._inside, "writing", False):
            yield
            return
        with locks.writer(self.root):
            self._inside.writing = True
            try:
                yield
            finally:
                self._inside.writing = False

    @contextlib.contextmanager
    def _writing(self, command: str) -> Iterator[Transaction]:
        with self.writing(), transaction(self.root, self.history, self.packs, command) as plan:
            yield plan

    def start(
        self,
        persona: Persona,
        base: BaseManifest,
        base_files: Mapping[str, bytes],
        message: str,
        *,
        command: str = "init",
        vectors: NewVectors | None = None,
    ) -> str:
        """The first commit, on the unborn current branch. Raises UsageError if there is one already."""
        if persona.base != base.id:
            raise BaseMismatch(f"the persona stands on {persona.base[:12]}, the base given is {base.id[:12]}")
        if base.pinned and not self.packs.has(base.id):
            raise NotFoundError(f"base {base.id[:12]} is marked as pinned but has no pack")
        with self._writing(command) as plan:
            if plan.refs:
                raise UsageError("this registry has a first commit already", hint="`pv log --all` shows it")
            entry = write_base(self.history, base, base_files)
            commit = plan.commit(persona, message, [], base=entry, new=vectors)
            plan.move(plan.head, commit)
        return commit

    def change(
        self,
        command: str,
        message: str,
        edit: Callable[[Persona], Persona],
        *,
        vectors: NewVectors | None = None,
        held: NewVectors | None = None,
        also_from: Sequence[str] = (),
        second_parent: str | None = None,
        allow_empty: bool = False,
        branch: str | None = None,
        author: Author | None = None,
        unchanged_ok: bool = False,
    ) -> str:
        """Apply `edit` to the persona at the tip of a branch (default: the current one) and commit it.

        `edit` sees the newest persona and runs under the lock: it must be quick and touch no registry.
        What `vectors` says of a vector is added to what is known of it. Others new to the branch come from the
        commits `also_from`, from `second_parent` (40-hex ids) or from `held`. If nothing changes: the tip as it is
        if that is `unchanged_ok`, else UsageError. Raises what `edit` raises.
        """
        with self._writing(command) as plan:
            ref = plan.branch_ref(branch)
            tip = Snapshot(self.history, plan.tip(ref))
            before = tip.persona()
            after = edit(before).checked()
            if after.base != before.base:
                raise BaseMismatch(
                    "a commit cannot change the base", hint="start another registry with `pv init`"
                )
            if not (allow_empty or second_parent) and after.to_bytes() == before.to_bytes():
                if unchanged_ok:
                    return tip.commit
                raise UsageError(
                    "nothing changed: the persona is like that already", hint="`pv status` shows it"
                )
            others = [*also_from, *([second_parent] if second_parent else [])]
            commit = plan.commit(
                after,
                message,
                [tip.commit, *([second_parent] if second_parent else [])],
                base=tip.base_entry(),
                sources=[tip, *(Snapshot(self.history, other) for other in others)],
                new=vectors,
                held=held,
                author=author,
            )
            plan.move(ref, commit)
        return commit

    def merge(
        self,
        revision: str,
        take: Mapping[str, Take] | None = None,
        *,
        combine: Combine | None = None,
        message: str | None = None,
        command: str | None = None,
    ) -> MergeOutcome:
        """Merge a revision into the current branch. Conflicts are in the outcome, and change nothing.

        Here and below, `command` is what the operation is recorded as, if not as what it does.
        """
        theirs = self.resolve(revision)
        with self._writing(command or f"merge {revision}") as plan:
            return merge.merge(plan, theirs, revision, take or {}, combine, message)

    def revert(
        self,
        revision: str,
        mainline: int | None = None,
        *,
        take: Mapping[str, Take] | None = None,
        message: str | None = None,
        command: str | None = None,
    ) -> str:
        """Take back what one commit did. Raises ConflictError with both sides of what changed since."""
        target = self.resolve(revision)
        with self._writing(command or f"revert {revision}") as plan:
            return merge.revert(plan, target, mainline, take or {}, message)

    def cherry_pick(
        self,
        revision: str,
        mainline: int | None = None,
        *,
        take: Mapping[str, Take] | None = None,
        message: str | None = None,
        command: str | None = None,
    ) -> str:
        """Do on the current branch what one commit did elsewhere. Raises ConflictError."""
        target = self.resolve(revision)
        with self._writing(command or f"cherry-pick {revision}") as plan:
            return merge.cherry_pick(plan, target, mainline, take or {}, message)

    def create_branch(
        self, name: str, at: str | None = None, *, switch: bool = False, command: str | None = None
    ) -> str:
        """A new branch at a revision (default HEAD), and on to it if `switch`; returns the commit."""
        return self._create(refs.HEADS, "branch", name, at, command, switch=switch)

    def tag(self, name: str, at: str | None = None, *, command: str | None = None) -> str:
        """A name for a commit that does not move."""
        return self._create(refs.TAGS, "tag", name, at, command)

    def _create(
        self, folder: str, what: str, name: str, at: str | None, command: str | None, *, switch: bool = False
    ) -> str:
        refs.check_ref_name(name, what)
        commit = self.resolve(at)
        with self._writing(command or f"{what} {name}") as plan:
            names.create(plan, folder, name, commit, switch=switch)
        return commit

    def rename_branch(self, old: str, new: str, *, command: str | None = None) -> str:
        """Give a branch another name; HEAD follows if it is the current one. Returns the commit."""
        refs.check_ref_name(new)
        with self._writing(command or f"branch --move {old} {new}") as plan:
            return names.rename_branch(plan, old, new)

    def delete_branch(self, name: str, *, command: str | None = None) -> str:
        """Returns where it was. Its commits stay as long as the operation is kept: `undo` brings it back."""
        return self._delete(refs.HEADS, "branch", name, command)

    def delete_tag(self, name: str, *, command: str | None = None) -> str:
        return self._delete(refs.TAGS, "tag", name, command)

    def _delete(self, folder: str, what: str, name: str, command: str | None) -> str:
        with self._writing(command or f"{what} --delete {name}") as plan:
            return names.delete(plan, folder, what, name)

    def switch(self, name: str, *, command: str | None = None) -> Head:
        """Make a branch the current one; `-` is the one before. Raises UsageError for a tag or a commit."""
        name = operations.left_branch(self.history) if name == "-" else name
        with self._writing(command or f"switch {name}") as plan:
            names.switch(plan, name)
        return self.head()

    def undo(self, *, count: int = 1, to: int | None = None, dry_run: bool = False) -> WentBack:
        """Take back the newest operations that stand; with `to`, go back to how it was after that operation."""
        said = f"undo --to {to}" if to is not None else "undo" if count == 1 else f"undo -n {count}"
        choose = partial(undo.before_undo, count=count) if to is None else lambda _: to
        return self._go_back(said, choose, dry_run=dry_run)

    def redo(self, *, dry_run: bool = False) -> WentBack:
        """Take back the newest undo, if it was the last thing done."""
        return self._go_back("redo", undo.before_redo, dry_run=dry_run)

    def _go_back(self, said: str, choose: Callable[[GitRepository], int], *, dry_run: bool) -> WentBack:
        doing = said.split(" ")[0]
        if dry_run:
            return undo.back_to(self.history, choose(self.history), doing)
        with self._writing(said) as plan:
            went = undo.back_to(self.history, choose(self.history), doing)
            plan.head = went.head[1]
            for change in went.refs:
                plan.move(change.ref, change.new)
            if went.taken_back or went.brought_back:
                plan.undoes = went.to + 1
        return went
