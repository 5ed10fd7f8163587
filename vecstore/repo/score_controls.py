"""score_controls: what else would have done it: the base that is asked for the behaviour, and noise of the same size.

An effect that a line in the system prompt has too needs no vector; one that noise has too is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pv.registry.errors import UsageError
from pv.vecstore.data.rows import Rows
from pv.vecstore.progress import Report
from pv.vecstore.repo.score import Score, measure_builds, scored
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Control", "Controlled", "score_controls"]


@dataclass(frozen=True, slots=True)
class Control:
    """The base with a system `prompt`, or with noise, measured as the persona was."""

    kind: Literal["prompt", "random"]
    prompt: str | None
    score: Score

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "prompt": self.prompt, **self.score.to_json()}


@dataclass(frozen=True, slots=True)
class Controlled:
    score: Score
    controls: tuple[Control, ...]

    def to_json(self) -> dict[str, Any]:
        controls = [one.to_json() for one in self.controls]
        return {**self.score.to_json(), "controls": controls}


def score_controls(
    revision: Revision,
    rows: Rows,
    *,
    prompt: str | None = None,
    plan: ScorePlan | None = None,
    dtype: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Controlled:
    """Measure a revision and its controls. Raises as `score` does; UsageError for the base alone."""
    registry, commit = revision.registry, revision.commit
    persona = revision.persona.with_output(dtype=dtype)
    if persona.is_plain:
        raise UsageError("the base alone has nothing to control for", hint="name a revision with a behaviour")
    if prompt is not None and not prompt.strip():
        raise UsageError("an empty system prompt asks for nothing", hint='--prompt "Talk like a pirate."')
    plan, base = plan or ScorePlan(), persona.without_behaviours()
    subjects = [Subject("", persona), Subject("noise of the same size", persona, random=1)]
    if prompt is not None:
        subjects.append(Subject("the base with a system prompt", base, system=prompt))
    before, own, *others = measure_builds(
        registry, commit, base, subjects, [rows], plan, threads=threads, progress=progress
    )
    known = compared(registry, commit, persona.behaviours, rows)
    found = scored(registry, persona, rows, 0, before, own, plan, known)
    controls = tuple(
        Control(
            "random" if subject.random else "prompt",
            subject.system or None,
            scored(registry, subject.persona, rows, 0, before, one, plan, noted=False),
        )
        for subject, one in zip(subjects[1:], others, strict=True)
    )
    return Controlled(found, controls)
