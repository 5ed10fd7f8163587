"""`repo.probe`: the verbs of probes. They are one a file, beside this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.data.joined import RowFiles
    from pv.vecstore.data.rows import Rows
    from pv.vecstore.progress import Report
    from pv.vecstore.repo.probe.concept import Concept
    from pv.vecstore.repo.probe.edit import Edits
    from pv.vecstore.repo.probe.heads import Heads
    from pv.vecstore.repo.probe.known import KnownProbe
    from pv.vecstore.repo.probe.neurons import Neurons
    from pv.vecstore.repo.probe.sparsity import Sparsity
    from pv.vecstore.repo.repo import Repo

    Data = RowFiles | None

__all__ = ["ProbeVerbs"]


@dataclass(frozen=True, slots=True)
class ProbeVerbs:
    """What `pv probe` does, in Python: `repo.probe.heads("pirate")`.

    `what` is A..B, or B, which is compared with the base: each a revision, or a behaviour alone. `rows` are held-out
    ones, a set or several; None: those that were kept when the behaviour was trained. What is measured is noted as it
    goes on: the same call goes on with the rest, or gives what is known; `again` measures anew. The options of each are
    in its file.
    """

    repo: Repo

    def heads(
        self,
        what: str,
        rows: Data = None,
        *,
        threads: int | None = None,
        progress: Report | None = None,
        **how: Any,
    ) -> Heads:
        """Which attention heads changed, and which of them carry the behaviour. Options: see probe/heads.py."""
        from pv.vecstore.repo.probe.heads import heads

        return heads(self.repo, what, _rows(rows), threads=thread_count(threads), progress=progress, **how)

    def neurons(
        self,
        what: str,
        rows: Data = None,
        *,
        threads: int | None = None,
        progress: Report | None = None,
        **how: Any,
    ) -> Neurons:
        """How few MLP neurons flip the behaviour. Options: see probe/neurons.py."""
        from pv.vecstore.repo.probe.neurons import neurons

        return neurons(self.repo, what, _rows(rows), threads=thread_count(threads), progress=progress, **how)

    def concept(
        self,
        what: str,
        rows: Data = None,
        *,
        threads: int | None = None,
        progress: Report | None = None,
        **how: Any,
    ) -> Concept:
        """How many directions it is, which weights deal with it, how short it can be written. See probe/concept.py."""
        from pv.vecstore.repo.probe.concept import concept

        return concept(self.repo, what, _rows(rows), threads=thread_count(threads), progress=progress, **how)

    def edit(
        self,
        what: str,
        rows: Data = None,
        *,
        threads: int | None = None,
        progress: Report | None = None,
        **how: Any,
    ) -> Edits:
        """A rank-one edit beside the trained vector: paraphrases and neighbours. Options: see probe/edit.py."""
        from pv.vecstore.repo.probe.edit import edit

        return edit(self.repo, what, _rows(rows), threads=thread_count(threads), progress=progress, **how)

    def sparsity(
        self,
        what: str,
        rows: Data = None,
        *,
        threads: int | None = None,
        progress: Report | None = None,
        **how: Any,
    ) -> Sparsity:
        """Training that asks for few changes against plain training. Options: see probe/sparsity.py."""
        from pv.vecstore.repo.probe.sparsity import sparsity

        return sparsity(self.repo, what, _rows(rows), threads=thread_count(threads), progress=progress, **how)

    def known(self) -> list[KnownProbe]:
        """Every probe that is noted here, newest first; those that were stopped last."""
        from pv.vecstore.repo.probe.known import known_probes

        return sorted(
            known_probes(self.repo.registry), key=lambda one: (one.time or "", one.id), reverse=True
        )


def _rows(rows: Data) -> Rows | None:
    from pv.vecstore.data.joined import joined

    return None if rows is None else joined(rows)
