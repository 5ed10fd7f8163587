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
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.progress import Report
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.repo.build import Build, BuildPlan
    from pv.vecstore.repo.chat import Chat
    from pv.vecstore.repo.compare import Comparison
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.push import Push
    from pv.vecstore.repo.score import Score
    from pv.vecstore.repo.score_all import Scores
    from pv.vecstore.repo.show import Shown
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

    @cached_property
    def base(self) -> BaseManifest:
        """The tensor table of the base, and where it came from."""
        return self.registry.base(self.commit)

    @cached_property
    def parents(self) -> tuple[str, ...]:
        return self.registry.parents(self.commit)

    def vector(self, behaviour: str) -> TaskVector:
        """The task vector of a behaviour. Raises UnknownBehaviour, MissingBase."""
        from pv.vecstore.repo.vector import TaskVector

        return TaskVector(self, behaviour)

    def score(
        self,
        rows: Rows | str | PathLike[str],
        *,
        dtype: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Score:
        """Measure on held-out rows (a JSONL file, or Rows), with the base as the control. Kept per build."""
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.score import score

        return score(self, as_rows(rows), dtype=dtype, threads=thread_count(threads), progress=progress)

    def compare(
        self,
        other: str | Revision,
        rows: Rows | str | PathLike[str],
        *,
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
            dtype=dtype,
            threads=thread_count(threads),
            progress=progress,
        )

    def score_all(
        self,
        sets: Sequence[Rows | str | PathLike[str]] = (),
        *,
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
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Build:
        """Write the checkpoint to a new folder; `force` replaces one that pv built. The same bytes every time."""
        from pv.vecstore.repo.build import build

        return build(
            self, _path(output), dtype=dtype, rounding=rounding, shard_bytes=shard_bytes,
            force=force, threads=thread_count(threads), progress=progress,
        )  # fmt: skip

    def plan_build(
        self,
        output: str | PathLike[str],
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        shard_bytes: int = 5_000_000_000,
    ) -> BuildPlan:
        """The files that `build` would write."""
        from pv.vecstore.repo.build import plan_build

        return plan_build(self, _path(output), dtype=dtype, rounding=rounding, shard_bytes=shard_bytes)

    def verify(
        self,
        checkpoint: str | PathLike[str],
        *,
        dtype: str | None = None,
        rounding: str | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Verdict:
        """Is a checkpoint on disk this revision's build, bit for bit?"""
        from pv.vecstore.repo.verify import verify

        return verify(
            self,
            _path(checkpoint),
            dtype=dtype,
            rounding=rounding,
            threads=thread_count(threads),
            progress=progress,
        )

    def diff(self, other: str | Revision, *, weights: bool = True, progress: Report | None = None) -> Diff:
        """From this one to another."""
        from pv.vecstore.repo.diff import diff

        return diff(self, self._other(other), weights=weights, progress=progress)

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
