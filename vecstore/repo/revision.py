"""One commit of a registry, and the verbs that read it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.manifest import BaseManifest
from pv.registry.persona import Behaviour, Persona
from pv.registry.registry import Registry
from pv.vecstore.progress import Report
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.publish.words import Effect
    from pv.vecstore.repo.base import BaseState
    from pv.vecstore.repo.build import Build, BuildPlan
    from pv.vecstore.repo.build_shards import ShardBuild
    from pv.vecstore.repo.chat import Chat
    from pv.vecstore.repo.compare import Comparison
    from pv.vecstore.repo.config import Setting
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.export import Export, ExportPlan
    from pv.vecstore.repo.export_lora import LoraExport
    from pv.vecstore.repo.push import Push
    from pv.vecstore.repo.rows import KeptRows
    from pv.vecstore.repo.score import Score
    from pv.vecstore.repo.score_all import Scores
    from pv.vecstore.repo.score_controls import Controlled
    from pv.vecstore.repo.score_plan import ScorePlan
    from pv.vecstore.repo.show import Shown
    from pv.vecstore.repo.to_mergekit import MergekitExport
    from pv.vecstore.repo.vector import TaskVector
    from pv.vecstore.repo.verify import Verdict

__all__ = ["Revision"]


@dataclass(frozen=True, eq=False, repr=False)
class Revision:
    """A commit: it never changes. Make one with `Repo.at`; it works for as long as the Repo is open.

    `threads` changes no result; None is all processors. `progress` is called with a `Tick` as work goes on.
    """

    registry: Registry
    commit: str
    """The commit's id, 40 hex digits."""
    name: str
    """What was asked for: a branch, a tag, HEAD~1."""

    @cached_property
    def persona(self) -> Persona:
        return self.registry.persona(self.commit)

    def behaviour(self, name: str) -> Behaviour:
        """One of the persona's. Raises UnknownBehaviour."""
        return self.persona.behaviour(name, of="this persona" if self.name == "HEAD" else self.name)

    def alone(self, behaviour: str) -> Persona:
        """A behaviour by itself at weight 1, written as the persona is. Raises UnknownBehaviour."""
        self.behaviour(behaviour)
        return self.persona.alone(behaviour)

    @cached_property
    def base(self) -> BaseManifest:
        """The tensor table of the base, and where it came from."""
        return self.registry.base(self.commit)

    def base_state(self) -> BaseState:
        """The base with where it is now, if it is anywhere."""
        from pv.vecstore.repo.base import base_state

        return base_state(self)

    @cached_property
    def parents(self) -> tuple[str, ...]:
        return self.registry.parents(self.commit)

    def settings(self) -> dict[str, Setting]:
        """How behaviours are combined and builds written: {"output.dtype": "base", ...}."""
        from pv.vecstore.repo.config import settings

        return settings(self.persona)

    def setting(self, key: str) -> Setting:
        """One of them. Raises UsageError for a key that is none."""
        from pv.vecstore.repo.config import setting

        return setting(self.persona, key)

    @property
    def effects(self) -> tuple[Effect, ...]:
        """What was measured of its build before: by `score`, or by `pv eval`."""
        from pv.vecstore.repo.effects import known_effects

        return known_effects(self.registry, self.persona)

    def vector(self, behaviour: str) -> TaskVector:
        """The task vector of a behaviour. Raises UnknownBehaviour, MissingBase."""
        from pv.vecstore.repo.vector import TaskVector

        return TaskVector(self, behaviour)

    def rows(self, behaviour: str, *, held_out: bool = False) -> KeptRows:
        """The rows that a behaviour was trained on, or those it was measured on then.

        Raises UnknownBehaviour, NotFoundError if they were not kept.
        """
        from pv.vecstore.repo.rows import kept_rows

        return kept_rows(self, behaviour, held_out=held_out)

    def score(
        self,
        rows: Rows | str | PathLike[str],
        *,
        plan: ScorePlan | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Score:
        """Measure on held-out rows (a JSONL file, or Rows), with the base as the control. Kept per build.

        `plan` says what to measure beside the effect: damage on which neutral set, and how many replies.
        """
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.score import score

        return score(
            self, as_rows(rows), plan=plan, dtype=dtype, threads=thread_count(threads), progress=progress
        )

    def score_controls(
        self,
        rows: Rows | str | PathLike[str],
        *,
        prompt: str | None = None,
        plan: ScorePlan | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Controlled:
        """The score, beside that of noise of the same size, and of the base with a system prompt."""
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.score_controls import score_controls

        return score_controls(
            self, as_rows(rows), prompt=prompt, plan=plan, dtype=dtype,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def compare(
        self,
        other: str | Revision,
        rows: Rows | str | PathLike[str],
        *,
        plan: ScorePlan | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Comparison:
        """Measure this one and another on the same held-out rows, and their difference row by row."""
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.compare import compare

        return compare(
            self,
            self._other(other),
            as_rows(rows),
            plan=plan,
            dtype=dtype,
            threads=thread_count(threads),
            progress=progress,
        )

    def score_all(
        self,
        sets: Sequence[Rows | str | PathLike[str]] = (),
        *,
        plan: ScorePlan | None = None,
        dtype: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Scores:
        """Every behaviour alone, and the persona, on every set; by default the held-out rows that were kept."""
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.score_all import score_all

        return score_all(
            self,
            [as_rows(rows) for rows in sets],
            plan=plan,
            dtype=dtype,
            threads=thread_count(threads),
            progress=progress,
        )

    def build(
        self,
        output: str | PathLike[str],
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
        bake: bool = True,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Build:
        """Write the checkpoint to a new folder; `force` replaces one that pv built. The same bytes every time.

        Steering terms go into its biases where that is exact; the others, and with `bake` off all, are listed beside
        the weights.
        """
        from pv.vecstore.repo.build import build

        return build(
            self, _path(output), dtype=dtype, rounding=rounding, shard_bytes=shard_bytes,
            force=force, bake=bake, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def plan_build(
        self,
        output: str | PathLike[str],
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
        bake: bool = True,
    ) -> BuildPlan:
        """The files that `build` would write. Raises what it would, as far as that is known without weights."""
        from pv.vecstore.repo.build import plan_build

        return plan_build(
            self,
            _path(output),
            dtype=dtype,
            rounding=rounding,
            shard_bytes=shard_bytes,
            force=force,
            bake=bake,
        )

    def export_mergekit(
        self, output: str | PathLike[str] | None = None, *, force: bool = False
    ) -> MergekitExport:
        """The persona as YAML that mergekit runs, once its behaviours are exported to folders."""
        from pv.vecstore.repo.to_mergekit import export_mergekit

        return export_mergekit(self, None if output is None else _path(output), force=force)

    def build_shard(
        self,
        output: str | PathLike[str],
        number: int,
        count: int,
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        force: bool = False,
        bake: bool = True,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> ShardBuild:
        """Write one of `count` weight files (1 is the first); whoever writes the last one makes the folder."""
        from pv.vecstore.repo.build_shards import build_shard

        return build_shard(
            self, _path(output), number, count, dtype=dtype, rounding=rounding, force=force, bake=bake,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def plan_shard(
        self,
        output: str | PathLike[str],
        number: int,
        count: int,
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        bake: bool = True,
    ) -> BuildPlan:
        """The file that `build_shard` would write."""
        from pv.vecstore.repo.build_shards import plan_shard

        return plan_shard(self, _path(output), number, count, dtype=dtype, rounding=rounding, bake=bake)

    def build_on_ray(
        self,
        output: str | PathLike[str],
        address: str | None = None,
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
        bake: bool = True,
        threads: int = 1,
        progress: Report | None = None,
    ) -> Build:
        """Build on a Ray cluster, a task for each weight file. Without an address, on one for this machine."""
        from pv.vecstore.repo.build_on_ray import build_on_ray

        return build_on_ray(
            self, _path(output), address, dtype=dtype, rounding=rounding, shard_bytes=shard_bytes,
            force=force, bake=bake, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def export(
        self,
        behaviour: str,
        output: str | PathLike[str],
        *,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Export:
        """Write the checkpoint that was committed as a behaviour, bit for bit, whatever the persona does with it.

        What is not one captured checkpoint is built alone at weight 1: `captured` says which of both it was.
        """
        from pv.vecstore.repo.export import export

        return export(
            self, behaviour, _path(output), shard_bytes=shard_bytes,
            force=force, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def export_lora(
        self,
        output: str | PathLike[str],
        *,
        behaviour: str | None = None,
        rank: int | None = None,
        force: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> LoraExport:
        """Write the persona, or a `behaviour` at weight 1, as one PEFT adapter: exact, or of at most `rank`."""
        from pv.vecstore.repo.export_lora import export_lora

        return export_lora(
            self, behaviour, _path(output), rank=rank, force=force,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def plan_export(
        self,
        behaviour: str,
        output: str | PathLike[str],
        *,
        shard_bytes: int = 5_000_000_000,
        force: bool = False,
    ) -> ExportPlan:
        """The files that `export` would write. Raises what it would, as far as that is known without weights."""
        from pv.vecstore.repo.export import plan_export

        return plan_export(self, behaviour, _path(output), shard_bytes=shard_bytes, force=force)

    def verify(
        self,
        checkpoint: str | PathLike[str],
        *,
        weights_only: bool = False,
        recompute: bool = False,
        dtype: str | None = None,
        rounding: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Verdict:
        """Is a checkpoint on disk this revision's build, bit for bit, with nothing beside it that changes it?"""
        from pv.vecstore.repo.verify import verify

        return verify(
            self.registry, _path(checkpoint), self, weights_only=weights_only, recompute=recompute,
            dtype=dtype, rounding=rounding, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def diff(
        self,
        other: str | Revision,
        *,
        weights: bool = False,
        heads: bool = False,
        spectra: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Diff:
        """From this one to another. `weights` reads them, unless these two were compared before.

        `heads` and `spectra` read them, and say how far each attention head moved, and in how many directions each
        matrix.
        """
        from pv.vecstore.repo.diff import diff

        there = self._other(other)
        return diff(
            self, there, weights=weights, heads=heads, spectra=spectra,
            threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def chat(
        self, *, base: bool = False, threads: int | None = None, progress: Report | None = None
    ) -> AbstractContextManager[Chat]:
        """The loaded model: `with rev.chat() as chat: print(chat.replies(["Hello"]))`."""
        from pv.vecstore.repo.chat import chat

        return chat(self, base=base, threads=thread_count(threads), progress=progress)

    def replies(
        self,
        prompts: str | Sequence[str],
        max_tokens: int = 256,
        *,
        base: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
        **sampling: Any,
    ) -> list[str]:
        """Ask each prompt by itself. Loads the model for it: use `chat` to ask again."""
        asked = [prompts] if isinstance(prompts, str) else prompts
        with self.chat(base=base, threads=threads, progress=progress) as model:
            return model.replies(asked, max_tokens, **sampling)

    def push(
        self,
        address: str,
        *,
        message: str | None = None,
        private: bool = False,
        parent: str | None = None,
        force: bool = False,
        endpoint: str | None = None,
        dry_run: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Push:
        """Build and publish to `hf://USER/NAME`, as one commit there."""
        from pv.vecstore.repo.push import push

        return push(
            self, address, message=message or f"pv {self.commit[:12]}", private=private, parent=parent,
            force=force, endpoint=endpoint, dry_run=dry_run, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def show(self) -> Shown:
        """The commit with its message, and where its vectors came from."""
        from pv.vecstore.repo.show import show

        return show(self)

    def _other(self, revision: str | Revision) -> Revision:
        if isinstance(revision, Revision):
            return revision
        return Revision(self.registry, self.registry.resolve(revision), revision)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Revision) and other.commit == self.commit

    def __hash__(self) -> int:
        return hash(self.commit)

    def __repr__(self) -> str:
        return f"<Revision {self.name} {self.commit[:12]}>"

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import revision_html

        return revision_html(self)


def _path(path: str | PathLike[str]) -> Path:
    return Path(path).expanduser().absolute()
