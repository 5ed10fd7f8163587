"""test: does a steering term do on held-out rows what it was extracted for, and what does it cost elsewhere?"""

from __future__ import annotations

from os import PathLike
from typing import TYPE_CHECKING

from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.progress import Report
from pv.vecstore.repo.score import measure_builds, scored
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.steer.gates import (
    Condition,
    Passage,
    against,
    damage_json,
    not_held_out,
    trial,
    unseen,
)

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["test"]


def test(
    repo: Repo,
    name: str,
    rows: Rows | str | PathLike[str],
    *,
    plan: ScorePlan | None = None,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Passage:
    """The term alone on the base: its effect must be above 0 with its whole interval, on rows it was not made from."""
    data, plan = as_rows(rows), plan or ScorePlan(replies=0)
    with trial(repo, name) as of:
        alone = of.alone
        before, after = measure_builds(
            of.registry, of.commit, alone.without_behaviours(), [Subject(f"steered by {name}", alone)], [data],
            plan, threads=threads, progress=progress,
        )  # fmt: skip
        known = not_held_out(of.registry, of.commit, of.term.vector, data)
        score = scored(of.registry, alone, data, 0, before, after, plan, known)
        moved = after.margins[0].margin - before.margins[0].margin
        conditions = (
            Condition(
                f"effect {score.effect.mean:+.2f} [{score.effect.low:+.2f}, {score.effect.high:+.2f}] nats: "
                "above 0 with its whole interval",
                score.effect.low > 0,
            ),
            unseen(data, known),
        )
        evidence = {
            "data": score.data,
            "data_id": score.data_id,
            "n": score.effect.n,
            "effect": score.effect.ends(),
            "against": against(moved).ends(),
            "damage": damage_json(score.damage),
        }
        return of.land(Passage("tested", name, conditions, evidence, score), message=message)
