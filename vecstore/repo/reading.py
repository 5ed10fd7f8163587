"""What can be read of a repository, as methods of `Repo`: nothing here moves a branch or writes a commit."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from pv.registry.disk.closing import Closing
from pv.registry.history.log import LogEntry
from pv.registry.history.operations import Operation
from pv.registry.history.undo import numbered
from pv.registry.persona import Persona
from pv.registry.registry import Head, Registry
from pv.vecstore.progress import Report
from pv.vecstore.repo.revision import Revision
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.forecast.forecast import Forecast
    from pv.vecstore.repo.diff import Diff
    from pv.vecstore.repo.diff_against import Against
    from pv.vecstore.repo.probe.known import KnownProbe
    from pv.vecstore.repo.show import Shown, ShownBehaviour, ShownRows
    from pv.vecstore.repo.vectors import KnownVector
    from pv.vecstore.repo.verify import Verdict
    from pv.vecstore.repo.versions import Version

__all__ = ["Reading"]


class Reading(Closing):
    """A registry, and what it holds."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        """The store beneath: bytes, git and JSON."""

    @property
    def path(self) -> Path:
        """The folder that holds `.pv`."""
        return self.registry.root.parent

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

    def show(self, what: str = "HEAD") -> Shown | ShownBehaviour | ShownRows | KnownVector | KnownProbe:
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
        heads: bool = False,
        spectra: bool = False,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Diff:
        """What differs between two revisions; `weights` reads them, unless these two were compared before."""
        return self.at(a).diff(
            self.at(b), weights=weights, heads=heads, spectra=spectra, threads=threads, progress=progress
        )

    def diff_against(
        self,
        a: Revision | Path | str,
        b: Revision | Path | str,
        *terms: str,
        texts: Rows | str | PathLike[str] | None = None,
        threads: int | None = None,
        progress: Report | None = None,
    ) -> Against:
        """How far activations moved from a to b along steering terms (`[REV:]NAME`), and whether that is more than
        chance. Two revisions, or folders of checkpoints, with which a revision stands for its base.

        Over `texts`, pv's neutral set if none are given. A string is a revision, a Path a folder.
        """
        from pv.vecstore.checkpoints.object_store import is_store_url
        from pv.vecstore.data.rows import as_rows
        from pv.vecstore.repo.diff_against import diff_against

        rows = None if texts is None else as_rows(texts)
        first, second = (
            self.at(one) if isinstance(one, str) and not is_store_url(one) else one for one in (a, b)
        )
        return diff_against(self, first, second, terms, texts=rows, threads=threads, progress=progress)

    def forecast(
        self,
        *behaviours: str,
        calibration: str | PathLike[str] | None = None,
        progress: Report | None = None,
    ) -> Forecast:
        """What every two of these (NAME, REV:NAME) would keep of their effects, added up at weight 1; or why nobody
        knows. Reads sketches, and of a vector that has none its pack. Raises UsageError, UnknownBehaviour."""
        from pv.vecstore.repo.forecast import forecast_of

        return forecast_of(self, behaviours, calibration=calibration, progress=progress)

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

    def close(self) -> None:
        self.registry.close()

    def __repr__(self) -> str:
        return f"<Repo {self.path} on {self.head.branch}>"

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import repo_html

        return repo_html(self)
