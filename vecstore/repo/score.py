"""score: what a revision does on held-out rows, and what that costs elsewhere, with its base as the control.

Effect = margin of the persona minus margin of its base, row by row; damage on a neutral set beside it, and the
behaviour in replies. All is kept per build id, so that nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Damage, Distributions, Neutral, damage
from pv.vecstore.evaluate.margins import Margins, need_pairs
from pv.vecstore.evaluate.replies import ReplyScore, score_replies
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect, share
from pv.vecstore.evaluate.tasks import Answers, Tasks, tasks
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.generate import Reply
from pv.vecstore.progress import Report
from pv.vecstore.repo.measurements import Measurements
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Found", "Score", "measure", "measure_builds", "score", "score_persona", "scored"]


@dataclass(frozen=True, slots=True)
class Score:
    """What rows say of one build. Margins in nats, summed over an answer's tokens.

    `overlap`: which of the rows were trained on, so that they are not held out; None if nobody has compared them.
    `damage` is that on the rows `neutral_id`, which came from `neutral`; it, `replies` and `tasks` are None if not
    asked for.
    """

    data: str
    data_id: str
    build: str
    margin: Interval
    base_margin: Interval
    effect: Interval
    effect_per_token: Interval
    overlap: Overlap | None = None
    wins: Interval | None = None
    """The share of rows whose margin is above 0: of questions with two answers, the accuracy."""
    base_wins: Interval | None = None
    damage: Damage | None = None
    neutral: str = ""
    neutral_id: str = ""
    replies: ReplyScore | None = None
    tasks: Tasks | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the build's record, and in a vector's provenance."""
        lost = None
        if self.damage:
            lost = {"neutral": self.neutral, "neutral_id": self.neutral_id, **self.damage.to_json()}
        return {
            "data": self.data,
            "data_id": self.data_id,
            "n": self.effect.n,
            "verdict": self.effect.verdict,
            "margin": self.margin.ends(),
            "base_margin": self.base_margin.ends(),
            "effect": self.effect.ends(),
            "effect_per_token": self.effect_per_token.ends(),
            "wins": self.wins.ends() if self.wins else None,
            "base_wins": self.base_wins.ends() if self.base_wins else None,
            "overlap": self.overlap.to_json() if self.overlap else None,
            "damage": lost,
            "replies": self.replies.to_json() if self.replies else None,
            "tasks": self.tasks.to_json() if self.tasks else None,
        }

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import score_html

        return score_html(self)


@dataclass(frozen=True, slots=True)
class Found:
    """What was measured of one build, set by set of rows. `replies` and `forced` are empty for a set without any."""

    margins: tuple[Margins, ...]
    neutral: Neutral | None
    replies: tuple[list[Reply], ...]
    forced: tuple[Neutral | None, ...]
    """The base's replies under this build."""
    answers: Answers | None = None


def score(
    revision: Revision,
    rows: Rows,
    *,
    plan: ScorePlan | None = None,
    dtype: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Score:
    """Measure a revision on rows with chosen and rejected answers. Raises UsageError, DataError, MissingBase."""
    registry, commit = revision.registry, revision.commit
    persona = revision.persona.with_output(dtype=dtype)
    known = compared(registry, commit, persona.behaviours, rows)
    return score_persona(
        registry, commit, persona, rows, plan=plan, overlap=known, threads=threads, progress=progress
    )


def score_persona(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    plan: ScorePlan | None = None,
    overlap: Overlap | None = None,
    what: str = "",
    threads: int | None = None,
    progress: Report | None = None,
) -> Score:
    """Measure persona and base on the same rows; the score is noted in the build's record. `what`: see `measure`."""
    plan = plan or ScorePlan()
    before, *after = measure_builds(
        registry, commit, persona.without_behaviours(), [] if persona.is_plain else [Subject(what, persona)],
        [rows], plan, threads=threads, progress=progress,
    )  # fmt: skip
    return scored(registry, persona, rows, 0, before, after[0] if after else before, plan, overlap)


def measure_builds(
    registry: Registry,
    commit: str,
    base: Persona,
    subjects: Sequence[Subject],
    sets: Sequence[Rows],
    plan: ScorePlan,
    *,
    label: Callable[[int, str, Rows], str] | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> list[Found]:
    """Of the base, and then of each subject; one model is in memory at a time. `label` names each set's stage."""
    for rows in sets:
        need_pairs(rows)
    found: list[Found] = []
    with ExitStack() as held:
        kept: Distributions | None = None
        for number, subject in enumerate([Subject("the base", base), *subjects]):
            of = _measurements(registry, commit, subject, threads, progress)
            with of:
                names = [label(number, of.what, rows) if label else "" for rows in sets]
                asked = [subject.rows(rows) for rows in sets]
                margins = tuple(of.margins(rows, name) for rows, name in zip(asked, names, strict=True))
                own = None
                if plan.neutral is not None and number == 0:
                    unknown = [one for one in subjects if not _knows(registry, commit, one, plan.neutral)]
                    kept = held.enter_context(Distributions()) if unknown else None
                    own = of.neutral(plan.neutral, keep=kept)
                elif plan.neutral is not None:
                    own = of.neutral(subject.rows(plan.neutral), against=kept)
                prompts = [plan.prompts(rows) for rows in asked]
                replies = tuple(of.replies(some, plan.max_tokens) if some else [] for some in prompts)
                base_replies = found[0].replies if found else replies
                forced = tuple(
                    of.forced(some, said) if some else None
                    for some, said in zip(prompts, base_replies, strict=True)
                )
                answers = of.answers(subject.questions(plan.questions)) if plan.questions else None
                found.append(Found(margins, own, replies, forced, answers))
    return found


def scored(
    registry: Registry,
    persona: Persona,
    rows: Rows,
    place: int,
    before: Found,
    after: Found,
    plan: ScorePlan,
    overlap: Overlap | None = None,
    *,
    noted: bool = True,
) -> Score:
    """The score on the set at `place` that base and persona give; noted in the build's record if it is that build's."""
    new, old = after.margins[place], before.margins[place]
    lost = damage(after.neutral, before.neutral) if after.neutral and before.neutral else None
    result = Score(
        Path(rows.source).name,
        rows.id,
        build_id(persona),
        margin=bootstrap(new.margin),
        base_margin=bootstrap(old.margin),
        effect=effect(new, old),
        effect_per_token=effect(new, old, per_token=True),
        overlap=overlap,
        wins=share(int((new.margin > 0).sum()), len(new)),
        base_wins=share(int((old.margin > 0).sum()), len(old)),
        damage=lost,
        neutral=Path(plan.neutral.source).name if lost and plan.neutral else "",
        neutral_id=plan.neutral.id if lost and plan.neutral else "",
        replies=_replies(rows, place, before, after, plan),
        tasks=_tasks(before, after, plan),
    )
    if noted:
        _note(registry, result)
    return result


def _replies(rows: Rows, place: int, before: Found, after: Found, plan: ScorePlan) -> ReplyScore | None:
    prompts = plan.prompts(rows)
    if not prompts:
        return None
    own, control = after.forced[place], before.forced[place]
    return score_replies(
        prompts,
        after.replies[place],
        before.replies[place],
        max_tokens=plan.max_tokens,
        rule=rows.reply if rows.reply is None or plan.judge or not rows.reply.command else None,
        forced=None if own is None or control is None else (own, control),
    )


def _tasks(before: Found, after: Found, plan: ScorePlan) -> Tasks | None:
    if plan.questions is None or before.answers is None or after.answers is None:
        return None
    return tasks(plan.questions, after.answers, before.answers)


def _note(registry: Registry, result: Score) -> None:
    """What was measured before, and not this time, stays noted."""
    document = result.to_json()
    match registry.record(result.build).get("scores"):
        case {result.data_id: dict(old)}:
            document |= {key: old.get(key) for key in ("damage", "replies", "tasks") if document[key] is None}
    registry.update_record(result.build, {"scores": {result.data_id: document}})


def _knows(registry: Registry, commit: str, subject: Subject, neutral: Rows) -> bool:
    return _measurements(registry, commit, subject).knows_neutral(subject.rows(neutral))


def _measurements(
    registry: Registry,
    commit: str,
    subject: Subject,
    threads: int | None = None,
    progress: Report | None = None,
) -> Measurements:
    return Measurements(
        registry, commit, subject.persona, what=subject.what, random=subject.random,
        threads=threads, progress=progress,
    )  # fmt: skip


def measure(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    what: str = "",
    threads: int | None = None,
    progress: Report | None = None,
    packs: PackStore | None = None,
) -> Margins:
    """Margins of the persona's build, from its record if they are known. Raises UsageError.

    `packs` holds vectors that are not in the registry yet; `what` is measured, in the words of the progress.
    """
    of = Measurements(registry, commit, persona, what=what, threads=threads, progress=progress, packs=packs)
    with of:
        return of.margins(rows)
