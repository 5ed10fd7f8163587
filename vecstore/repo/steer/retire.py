"""retire: the weights alone do it now: the term is kept, and applied no more.

Only where the behaviour, alone at its weight, gives the share of the steered effect that is asked for, and surely costs
no more than steering does. `unretire`, or a revert, takes it back.
"""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from types import MappingProxyType
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.provenance import Trained
from pv.registry.provenance_ways import origins
from pv.registry.steering_origin import Extracted
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.damage import damage
from pv.vecstore.evaluate.statistics import kept
from pv.vecstore.progress import Report
from pv.vecstore.repo.score import measure_builds, scored
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.steer.gates import Condition, Passage, Trial, damage_json, not_held_out, trial, unseen
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["SHARE", "retire"]

SHARE = 0.8
"""Of the steered effect, what the weights alone must give, unless told otherwise."""


def retire(
    repo: Repo,
    name: str,
    rows: Rows | str | PathLike[str],
    *,
    by: str,
    least: float = SHARE,
    plan: ScorePlan | None = None,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Passage:
    """Retire a verified term by a behaviour, if it passes; the behaviour is measured alone, at its weight."""
    if not 0 < least <= 2:
        raise UsageError(f"the share of the effect is a number above 0, not {least:g}", hint="0.8 is 80 %")
    data, plan = as_rows(rows), plan or ScorePlan(replies=0)
    with trial(repo, name) as of:
        of.needs("verified")
        behaviour = of.persona.behaviour(by)
        only = MappingProxyType({by: behaviour})
        trained = replace(of.persona.without_behaviours(), behaviours=only)
        before, with_term, with_weights = measure_builds(
            of.registry, of.commit, trained.without_behaviours(),
            [Subject(f"steered by {name}", of.alone), Subject(by, trained)], [data], plan,
            threads=threads, progress=progress,
        )  # fmt: skip
        known = not_held_out(of.registry, of.commit, of.term.vector, data)
        taught = compared(of.registry, of.commit, only, data)
        score = scored(of.registry, trained, data, 0, before, with_weights, plan, taught)
        steered = scored(of.registry, of.alone, data, 0, before, with_term, plan, known)
        part = kept(with_weights.margins[0], with_term.margins[0], before.margins[0])
        conditions = [
            unseen(data, known),
            Condition(
                f"{by} was trained on {taught.rows} of the rows, and on the prompts of {taught.prompts} others",
                taught.rows == taught.prompts == 0,
            ),
            Condition(
                f"effect of the weights alone, {by} at {behaviour.weight:g}: {score.effect.mean:+.2f} "
                f"[{score.effect.low:+.2f}, {score.effect.high:+.2f}] nats: above 0 with its whole interval",
                score.effect.low > 0,
            ),
            Condition(
                "the steered effect is not above 0 for certain: there is nothing to have a share of"
                if part is None
                else f"{part.mean:.0%} [{part.low:.0%}, {part.high:.0%}] of the steered effect "
                f"({steered.effect.mean:+.2f} nats): at least {least:.0%}",
                part is not None and part.mean >= least,
            ),
        ]
        if with_term.neutral is not None and with_weights.neutral is not None:
            more = damage(with_weights.neutral, with_term.neutral)
            conditions += [
                Condition(
                    f"{one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}] nats a token of {what} lost beyond what "
                    "steering loses: not above 0 with its whole interval",
                    one.low <= 0,
                )
                for what, one in (("answers", more.answers), ("text", more.text))
                if one is not None
            ]
        evidence = {
            "by": by,
            "weight": behaviour.weight,
            "vectors": [one.vector for one in behaviour.terms],
            "data": score.data,
            "data_id": score.data_id,
            "n": score.effect.n,
            "effect": score.effect.ends(),
            "steered_effect": steered.effect.ends(),
            "share": None if part is None else part.ends(),
            "least": least,
            "damage": damage_json(score.damage),
            "steered_damage": damage_json(steered.damage),
        }
        notes = () if _taught_by(of, by) else (f"{by} was not trained from {name} by `pv steer train`",)
        passage = Passage("retired", name, tuple(conditions), evidence, score, notes=notes)
        said = message or f"Retire {name}: {by} does it in the weights"
        return of.land(passage, (by, behaviour), said)


def _taught_by(of: Trial, behaviour: str) -> bool:
    """Whether the behaviour's last version learnt from that term, or from the rows that it was extracted from."""
    known = origins(of.registry.provenance(of.commit, of.term.vector))
    rows = {one.pairs.data_id for one in known if isinstance(one, Extracted)}
    vector = of.persona.behaviour(behaviour).terms[-1].vector
    for one in origins(of.registry.provenance(of.commit, vector)):
        if isinstance(one, Trained):
            teacher = one.settings.get("teacher")
            steering = teacher.get("steering", {}).get("terms", {}) if isinstance(teacher, dict) else {}
            if one.data.id in rows or any(t.get("vector") == of.term.vector for t in steering.values()):
                return True
    return False
