"""A pv repository, opened: every verb of pv as a method. The verbs themselves are one a file, beside this one.

Those that only read are in reading.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.build_cache import BYTES
from pv.registry.combine import Combine
from pv.registry.history.threeway import Take
from pv.registry.history.undo import WentBack
from pv.registry.registry import Head, Registry
from pv.vecstore.progress import Report
from pv.vecstore.repo.edit import Committed
from pv.vecstore.repo.reading import Reading
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.repo.base import BaseState
    from pv.vecstore.repo.commit import Capture
    from pv.vecstore.repo.compress import Compressed
    from pv.vecstore.repo.config import Setting
    from pv.vecstore.repo.derive import DerivedBehaviour
    from pv.vecstore.repo.fsck import Checked
    from pv.vecstore.repo.gc import Collected
    from pv.vecstore.repo.plan_merge import MergePlan
    from pv.vecstore.repo.probe.probing import ProbeVerbs
    from pv.vecstore.repo.steer.steering import SteeringVerbs
    from pv.vecstore.repo.train import Training

__all__ = ["Repo"]


class Repo(Reading):
    """The registry in a folder's `.pv`, or in that of a folder above.

    Every verb gives a frozen value back, and raises a PvError with a hint. Long work stays on the branch on which it
    began, whatever is switched meanwhile. `threads` changes no result; None is all processors. `progress` is called
    with a `Tick` as work goes on. Close it, or use it in a `with`.
    """

    def __init__(self, registry: Registry, *, command_line: str | None = None) -> None:
        super().__init__(registry)
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

    # Making behaviours

    def train(
        self,
        rows: Rows | str | PathLike[str],
        *,
        name: str,
        held_out: Rows | str | PathLike[str] | None = "beside",
        general_set: Rows | str | PathLike[str] | None = None,
        replies: int = 0,
        on: str | None = None,
        weight: float | None = None,
        encoding: str = "int8",
        all_turns: bool = False,
        keep_rows: bool = True,
        message: str | None = None,
        resume: bool = False,
        save_every: float = 300.0,
        target_effect: float | None = None,
        patience: int | None = None,
        check_every: int = 1,
        metrics: str | PathLike[str] | None = None,
        report_to: Sequence[str] = (),
        together: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
        **options: Any,
    ) -> Training:
        """Train a behaviour on the base, from rows (a JSONL file, or Rows), and commit it.

        With `all_turns`, of a conversation every answer is trained on, not the last alone.
        `on` is a revision: it is trained from that persona's build, and the vector is the difference from it.

        `held_out` rows give its effect: by default ROWS.heldout with the same suffix (of rows.jsonl:
        rows.heldout.jsonl), if it lies beside; None for none. `options` are those of TrainOptions: lr, epochs,
        batch, rank, seed, ... It is saved every `save_every` seconds and when it is interrupted; `resume` goes on
        from there, bit for bit. With `target_effect` (nats) or `patience` the effect on the held-out rows, measured
        every `check_every` steps, ends the run. `metrics` is a file of JSON lines, `report_to` names trackers
        ("tensorboard", "wandb", "trackio"). `general_set` are the ordinary answers that are held still where `general`
        is not 0: pv's own, or yours. `replies`: to how many held-out prompts the score has them. `together`: all
        processes that torchrun started call this, and train one vector. Raises DataError, TrainingFailed, MissingBase.
        """
        from pv.vecstore.repo.train import follow, train
        from pv.vecstore.train.options import TrainOptions
        from pv.vecstore.train.processes import several

        with several(together) as processes:
            if processes is not None and not processes.leads:
                return follow(processes)
            made = train(
                self, rows, name=name, on=on, held_out=held_out, general=general_set, replies=replies, weight=weight,
                options=TrainOptions.of(ordinary=general_set is not None, **options),
                encoding=encoding, all_turns=all_turns, keep_rows=keep_rows, message=message,
                resume=resume, save_every=save_every,
                target_effect=target_effect, patience=patience, check_every=check_every,
                metrics_file=None if metrics is None else Path(metrics), report_to=report_to,
                threads=thread_count(threads), progress=progress, processes=processes,
            )  # fmt: skip
            if processes is not None:
                processes.told(made)
        return made

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

    @property
    def steer(self) -> SteeringVerbs:
        """The verbs of steering terms: `repo.steer.set("formal", 2.0)`."""
        from pv.vecstore.repo.steer.steering import SteeringVerbs

        return SteeringVerbs(self)

    @property
    def probe(self) -> ProbeVerbs:
        """The verbs of probes: `repo.probe.heads("pirate")`."""
        from pv.vecstore.repo.probe.probing import ProbeVerbs

        return ProbeVerbs(self)

    def scale(
        self,
        name: str,
        weight: float,
        *,
        modules: Mapping[str, float] | None = None,
        depth: Mapping[float, float] | str | None = None,
        message: str | None = None,
    ) -> Committed:
        """Set a behaviour's weight. `modules` {pattern of tensor names: factor} replaces its factors; {} removes them.

        `depth` {0: 0.5, 1: 1} adds one factor a layer to them: 0 is the first layer, 1 the last, between them a line.
        """
        from pv.vecstore.repo.scale import scale

        return scale(self, name, weight, modules=modules, depth=depth, message=message)

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

    def define(
        self, name: str, expression: str, *, weight: float | None = None, message: str | None = None
    ) -> Committed:
        """A behaviour that is a sum of others: `repo.define("plain", "house-style - 0.5*v1:formal")`.

        Their terms become its own, with their weights multiplied in. Raises UsageError, UnknownBehaviour.
        """
        from pv.vecstore.repo.algebra import define

        return define(self, name, expression, weight=weight, message=message)

    def derive(
        self,
        name: str,
        expression: str,
        *,
        match_norm: bool = False,
        to: str | None = None,
        weight: float | None = None,
        message: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> DerivedBehaviour:
        """One new vector of several behaviours, `repo.derive("both", "tsv(a, b)")`: computed now, and kept as `to`.

        With `match_norm` it counts with the factor that gives it the norm of the plain sum.
        """
        from pv.vecstore.repo.derive import derive

        return derive(
            self, name, expression, match_norm=match_norm, to=to, weight=weight, message=message,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

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

    def plan_merge(
        self,
        revision: str,
        *,
        take: Mapping[str, Take] | None = None,
        rule: str | Combine | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> MergePlan:
        """What `merge` would make, with the interference report of it. Changes nothing, builds nothing."""
        from pv.vecstore.repo import edit, plan_merge

        made = None if rule is None else edit.rule_of(rule, None, {})
        threads = thread_count(threads)
        return plan_merge.plan_merge(self, revision, take=take, rule=made, threads=threads, progress=progress)

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
