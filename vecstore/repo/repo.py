"""A pv repository, opened: every verb of pv as a method. The verbs themselves are one a file, beside this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.build_cache import BYTES
from pv.registry.combine import Combine
from pv.registry.disk.closing import Closing
from pv.registry.history.log import LogEntry
from pv.registry.history.operations import Operation
from pv.registry.history.threeway import Take
from pv.registry.history.undo import WentBack, numbered
from pv.registry.persona import Persona
from pv.registry.registry import Head, Registry
from pv.vecstore.progress import Report
from pv.vecstore.repo.edit import Committed
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.repo.base import BaseState
    from pv.vecstore.repo.commit import Capture
    from pv.vecstore.repo.compress import Compressed
    from pv.vecstore.repo.config import Setting
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.fsck import Checked
    from pv.vecstore.repo.gc import Collected
    from pv.vecstore.repo.show import Shown, ShownBehaviour, ShownRows
    from pv.vecstore.repo.train import Training
    from pv.vecstore.repo.vectors import KnownVector
    from pv.vecstore.repo.verify import Verdict
    from pv.vecstore.repo.versions import Version

__all__ = ["Repo"]


class Repo(Closing):
    """The registry in a folder's `.pv`, or in that of a folder above.

    Every verb gives a frozen value back, and raises a PvError with a hint. Long work stays on the branch on which it
    began, whatever is switched meanwhile. `threads` changes no result; None is all processors. `progress` is called
    with a `Tick` as work goes on. Close it, or use it in a `with`.
    """

    def __init__(self, registry: Registry, *, command_line: str | None = None) -> None:
        self.registry = registry
        """The store beneath: bytes, git and JSON."""
        self._command_line = command_line

    @staticmethod
    def open(
        path: str | PathLike[str] = ".", *, command_line: str | None = None, cache_bytes: int | None = None
    ) -> Repo:
        """Open the repository of a folder, or of the nearest above. Raises NotARegistry.

        `command_line` is what edits and long work are recorded as; by default, what each verb does. `cache_bytes` is
        how much of builds is kept for the next that needs one: 4 GB, unless told otherwise; 0: nothing.
        """
        kept = BYTES if cache_bytes is None else cache_bytes
        registry = Registry.find(Path(path).expanduser(), cache_bytes=kept)
        return Repo(registry, command_line=command_line)

    def command(self, said: str) -> str:
        """What an operation is recorded as."""
        return self._command_line or said

    @property
    def path(self) -> Path:
        """The folder that holds `.pv`."""
        return self.registry.root.parent

    # Looking

    @property
    def head(self) -> Head:
        """The current branch, and the commit that it is at."""
        return self.registry.head()

    def at(self, revision: str = "HEAD") -> Revision:
        """A branch, a tag, a commit id, HEAD~1. Raises UnknownRevision."""
        return Revision(self.registry, self.registry.resolve(revision), revision)

    @property
    def persona(self) -> Persona:
        """That of HEAD."""
        return self.at().persona

    def branches(self) -> dict[str, str]:
        """{name: commit}"""
        return self.registry.branches()

    def tags(self) -> dict[str, str]:
        """{name: commit}"""
        return self.registry.tags()

    def log(
        self,
        revision: str = "HEAD",
        *,
        all: bool = False,
        limit: int | None = None,
        keep: Callable[[LogEntry], bool] | None = None,
        graph: bool = False,
    ) -> list[LogEntry]:
        """Commits that lead to a revision, or `A..B`, newest first. `graph` keeps a line of development together."""
        return self.registry.log(revision, all=all, limit=limit, keep=keep, lines_together=graph)

    def versions(self, behaviour: str, revision: str = "HEAD", *, all: bool = False) -> list[Version]:
        """The versions of a behaviour in what leads to a revision, newest first. Raises UnknownBehaviour."""
        from pv.vecstore.repo.versions import versions

        return versions(self, behaviour, revision, all=all)

    def vectors(self) -> list[KnownVector]:
        """Every vector here, newest first: what it is, what keeps it, who uses it."""
        from pv.vecstore.repo.vectors import vectors

        return vectors(self)

    def show(self, what: str = "HEAD") -> Shown | ShownBehaviour | ShownRows | KnownVector:
        """A revision, a behaviour, REV:BEHAVIOUR, or any id. Raises UnknownRevision, UnknownBehaviour."""
        from pv.vecstore.repo.show import show_any

        return show_any(self, what)

    def operations(self, limit: int | None = None) -> list[Operation]:
        """What was done here, newest first."""
        return self.registry.operations(limit)

    def operation(self, number: int) -> Operation:
        """One of them. Raises NotFoundError."""
        return numbered(self.registry.history, number)

    def diff(
        self,
        a: str = "HEAD~1",
        b: str = "HEAD",
        *,
        weights: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Diff:
        """What differs between two revisions; `weights` reads them, unless these two were compared before."""
        return self.at(a).diff(self.at(b), weights=weights, threads=threads, progress=progress)

    def verify(
        self,
        checkpoint: str | PathLike[str],
        revision: str | None = None,
        *,
        weights_only: bool = False,
        recompute: bool = False,
        dtype: str | None = None,
        rounding: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Verdict:
        """Whose build is this checkpoint? With a revision: is it that one's? `verdict.known` names all that it is."""
        from pv.vecstore.repo.verify import find_and_verify

        return find_and_verify(
            self.registry, Path(checkpoint).expanduser().absolute(), revision, weights_only=weights_only,
            recompute=recompute, dtype=dtype, rounding=rounding, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    # Making behaviours

    def train(
        self,
        rows: Rows | str | PathLike[str],
        *,
        name: str,
        held_out: Rows | str | PathLike[str] | None = "beside",
        weight: float | None = None,
        encoding: str = "int8",
        keep_rows: bool = True,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
        **options: Any,
    ) -> Training:
        """Train a behaviour on the base, from rows (a JSONL file, or Rows), and commit it.

        `held_out` rows give its effect: by default ROWS.heldout with the same suffix (of rows.jsonl:
        rows.heldout.jsonl), if it lies beside; None for none. `options` are those of TrainOptions: lr, epochs,
        batch, rank, seed, ... Raises DataError, TrainingFailed, MissingBase.
        """
        from pv.vecstore.repo.train import train
        from pv.vecstore.train.options import TrainOptions

        return train(
            self, rows, name=name, held_out=held_out, weight=weight, options=TrainOptions(**options),
            encoding=encoding, keep_rows=keep_rows, message=message, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def commit(
        self,
        source: str | PathLike[str],
        *,
        name: str,
        on: str | None = None,
        weight: float | None = None,
        level: str = "default",
        force: bool = False,
        message: str | None = None,
        seen_from: Path | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Capture:
        """Commit a fine-tuned checkpoint or a PEFT adapter as a behaviour, bit for bit. `level="max"` is smaller.

        A fine-tune of a build is refused unless `on` says of which revision: what that holds is subtracted, so that
        both together are the checkpoint. `force` keeps the whole difference from the base, whatever it looks like.
        `source` is a folder (a relative one is `seen_from` the current folder by default), or a Hub id.
        """
        from pv.vecstore.repo.commit import commit

        return commit(
            self, source, name=name, on=on, weight=weight, level=level, force=force, seen_from=seen_from,
            message=message, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def compress(
        self,
        name: str,
        *to: str,
        keep: float | None = None,
        data: Rows | str | PathLike[str] | None = None,
        force: bool = False,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Compressed:
        """Re-encode a behaviour, smaller and approximate: `to` "int8", "lowrank:16", "sparse:0.1", "ternary".

        With `keep=0.95` and held-out `data`: the smallest that keeps so much of the effect, or none.
        """
        from pv.vecstore.repo.compress import compress

        return compress(
            self, name, to, keep=keep, data=data, force=force,
            message=message, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    # Changing the persona

    def scale(
        self,
        name: str,
        weight: float,
        *,
        modules: Mapping[str, float] | None = None,
        message: str | None = None,
    ) -> Committed:
        """Set a behaviour's weight; `modules` {pattern of tensor names: factor} replaces its factors."""
        from pv.vecstore.repo import edit

        return edit.scale(self, name, weight, modules=modules, message=message)

    def negate(self, *names: str, message: str | None = None) -> Committed:
        """Flip the signs of weights, in one commit."""
        from pv.vecstore.repo import edit

        return edit.negate(self, names, message=message)

    def drop(self, *names: str, message: str | None = None) -> Committed:
        """Remove behaviours, in one commit."""
        from pv.vecstore.repo import edit

        return edit.drop(self, names, message=message)

    def rename(self, old: str, new: str, *, message: str | None = None) -> Committed:
        from pv.vecstore.repo import edit

        return edit.rename(self, old, new, message=message)

    def add(
        self,
        behaviour: str,
        revision: str,
        *,
        name: str | None = None,
        weight: float | None = None,
        message: str | None = None,
    ) -> Committed:
        """Bring a behaviour from another revision, under its own `name` or another."""
        from pv.vecstore.repo import edit

        return edit.add(self, behaviour, revision, name=name, weight=weight, message=message)

    def combine(
        self, rule: str | Combine, *, preset: str | None = None, message: str | None = None, **options: Any
    ) -> Committed:
        """Set the merge method: `repo.combine("ties", density=0.3)`, `repo.combine("add")`, or a Combine."""
        from pv.vecstore.repo import edit

        return edit.combine(self, edit.rule_of(rule, preset, options), message=message)

    def output(
        self,
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        seed: int | None = None,
        message: str | None = None,
    ) -> Committed:
        """Set how builds are written."""
        from pv.vecstore.repo import edit

        return edit.output(self, dtype=dtype, rounding=rounding, seed=seed, message=message)

    def config(self, key: str, value: Setting, *, message: str | None = None) -> Committed:
        """Set one of `Revision.settings()`: `repo.config("output.dtype", "fp32")`."""
        from pv.vecstore.repo import config

        return config.config(self, key, value, message=message)

    # History

    def merge(
        self,
        revision: str,
        *,
        take: Mapping[str, Take] | None = None,
        rule: str | Combine | None = None,
        message: str | None = None,
    ) -> Committed:
        """Merge another branch. Raises ConflictError; `take` {name: "ours", "theirs", "theirs*0.5"} settles in advance.

        A bare weight settles where the sides differ in nothing else.
        """
        from pv.vecstore.repo import edit, merge

        made = None if rule is None else edit.rule_of(rule, None, {})
        return merge.merge(self, revision, take=take, rule=made, message=message)

    def revert(
        self,
        revision: str,
        *,
        mainline: int | None = None,
        take: Mapping[str, Take] | None = None,
        message: str | None = None,
    ) -> Committed:
        """Take back what a commit did, in a new commit. A merge needs `mainline`, mostly 1."""
        from pv.vecstore.repo import merge

        return merge.revert(self, revision, mainline=mainline, take=take, message=message)

    def cherry_pick(
        self,
        revision: str,
        *,
        mainline: int | None = None,
        take: Mapping[str, Take] | None = None,
        message: str | None = None,
    ) -> Committed:
        """Apply the change of another commit to this branch."""
        from pv.vecstore.repo import merge

        return merge.cherry_pick(self, revision, mainline=mainline, take=take, message=message)

    def branch(self, name: str, at: str = "HEAD", *, switch: bool = False) -> Revision:
        """A new branch."""
        said = self.command(f"{'switch -c' if switch else 'branch'} {name}")
        return Revision(
            self.registry, self.registry.create_branch(name, at, switch=switch, command=said), name
        )

    def rename_branch(self, old: str, new: str) -> Revision:
        said = self.command(f"branch -m {old} {new}")
        return Revision(self.registry, self.registry.rename_branch(old, new, command=said), new)

    def switch(self, name: str) -> Head:
        """Make a branch the current one; `-` is the one before."""
        return self.registry.switch(name, command=self.command(f"switch {name}"))

    def tag(self, name: str, at: str = "HEAD") -> Revision:
        """A name that does not move."""
        commit = self.registry.tag(name, at, command=self.command(f"tag {name}"))
        return Revision(self.registry, commit, name)

    def delete_branch(self, name: str) -> str:
        """Returns where it was."""
        return self.registry.delete_branch(name, command=self.command(f"branch -d {name}"))

    def delete_tag(self, name: str) -> str:
        """Returns where it was."""
        return self.registry.delete_tag(name, command=self.command(f"tag -d {name}"))

    def undo(self, *, count: int = 1, to: int | None = None, dry_run: bool = False) -> WentBack:
        """Take back the newest operations that stand; with `to`, go back to how it was after that one."""
        return self.registry.undo(count=count, to=to, dry_run=dry_run)

    def redo(self, *, dry_run: bool = False) -> WentBack:
        """Bring back what the last undo took back."""
        return self.registry.redo(dry_run=dry_run)

    # Keeping it sound

    def move_base(
        self,
        to: str | PathLike[str],
        *,
        seen_from: Path | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> BaseState:
        """Say where the base is now: a folder, or a Hub id. Raises BaseMismatch unless its bytes are there."""
        from pv.vecstore.repo.base import move_base

        return move_base(self.at(), to, seen_from=seen_from, threads=thread_count(threads), progress=progress)

    def fsck(
        self,
        *,
        deep: bool = False,
        repair: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Checked:
        """Check every file; `deep` decodes every pack too. Damage is a result, not an error."""
        from pv.vecstore.repo.fsck import fsck

        return fsck(self.path, deep=deep, repair=repair, threads=thread_count(threads), progress=progress)

    def gc(
        self,
        *,
        grace_days: float = 14.0,
        expire_days: float = 30.0,
        dry_run: bool = False,
        progress: Report | None = None,
    ) -> Collected:
        """Take out packs and objects that no branch, tag or operation needs. Raises UsageError for days below 0."""
        from pv.vecstore.repo.gc import collect

        return collect(
            self, grace_days=grace_days, expire_days=expire_days, dry_run=dry_run, progress=progress
        )

    def close(self) -> None:
        self.registry.close()

    def __repr__(self) -> str:
        return f"<Repo {self.path} on {self.head.branch}>"

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import repo_html

        return repo_html(self)
