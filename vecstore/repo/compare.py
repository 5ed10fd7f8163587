"""compare: what two revisions do on the same held-out rows, and the difference row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, effect
from pv.vecstore.progress import Report
from pv.vecstore.repo.score import Score, measure, score
from pv.vecstore.repo.score_plan import ScorePlan

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Comparison", "Measured", "compare"]


@dataclass(frozen=True, slots=True)
class Measured:
    """A revision, as it was asked for, and its score."""

    revision: str
    commit: str
    score: Score

    def to_json(self) -> dict[str, Any]:
        build = self.score.build
        return {"revision": self.revision, "commit": self.commit, "build": build, **self.score.to_json()}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`difference` is the margin of `b` minus that of `a`, row by row: what their intervals cannot say."""

    a: Measured
    b: Measured
    difference: Interval
    difference_per_token: Interval

    def to_json(self) -> dict[str, Any]:
        return {
            "data": self.a.score.data,
            "data_id": self.a.score.data_id,
            "n": self.difference.n,
            "verdict": self.difference.verdict,
            "difference": self.difference.ends(),
            "difference_per_token": self.difference_per_token.ends(),
            "a": self.a.to_json(),
            "b": self.b.to_json(),
        }


def compare(
    a: Revision,
    b: Revision,
    rows: Rows,
    *,
    plan: ScorePlan | None = None,
    dtype: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Comparison:
    """Measure both and their difference. Raises as `score` does."""

    def measured(revision: Revision) -> tuple[Measured, Margins]:
        found = score(revision, rows, plan=plan, dtype=dtype, threads=threads, progress=progress)
        persona = revision.persona.with_output(dtype=dtype)
        margins = measure(revision.registry, revision.commit, persona, rows)  # which its record has now
        return Measured(revision.name, revision.commit, found), margins

    (first, before), (second, after) = measured(a), measured(b)
    return Comparison(first, second, effect(after, before), effect(after, before, per_token=True))
