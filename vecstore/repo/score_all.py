"""score_all: every behaviour alone, and all of them together, on every set of held-out rows.

What was measured before is not measured again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import UsageError
from pv.registry.persona import Behaviour, Persona
from pv.registry.provenance import Provenance, Trained
from pv.registry.provenance_ways import origins
from pv.registry.registry import Registry
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.data.rows import Rows
from pv.vecstore.merge.build import build_id
from pv.vecstore.progress import Report
from pv.vecstore.repo.score import Score, measure_builds, scored
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Line", "Scores", "score_all"]


@dataclass(frozen=True, slots=True)
class Line:
    """A behaviour alone at weight 1, or (None) the persona: its score on each set, in the sets' order."""

    behaviour: str | None
    build: str
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Scores:
    """The persona's line is the last. `without_rows` are behaviours whose held-out rows are not at hand."""

    commit: str
    lines: tuple[Line, ...]
    without_rows: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            "lines": [
                {"behaviour": x.behaviour, "build": x.build, "scores": [one.to_json() for one in x.scores]}
                for x in self.lines
            ],
            "without_rows": list(self.without_rows),
        }


def score_all(
    revision: Revision,
    sets: Sequence[Rows] = (),
    *,
    plan: ScorePlan | None = None,
    dtype: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Scores:
    """Measure on `sets`, or on the held-out rows that the registry keeps. Raises UsageError if there are none.

    Replies are written only if the plan says so: every line times every set is many.
    """
    plan = plan or ScorePlan(replies=0)
    registry, persona = revision.registry, revision.persona.with_output(dtype=dtype)
    without: tuple[str, ...] = ()
    if not sets:
        sets, without = _kept(revision)
    alone = {name: persona.alone(name) for name in sorted(persona.behaviours)}
    # the same terms are the same weights, whatever their name: measured once, and rather where they were before
    one_of: dict[tuple[Any, ...], tuple[str, Persona]] = {}
    for line in sorted(alone.items(), key=lambda line: not _is_known(registry, line[1], sets)):
        one_of.setdefault(_alike(persona.behaviours[line[0]]), line)
    measured = [Subject(*line) for line in one_of.values()]
    measured += [] if persona.is_plain else [Subject("the persona", persona)]
    places = {rows.id: place for place, rows in enumerate(sets, start=1)}
    total = (len(measured) + 1) * len(sets)

    def label(line: int, name: str, rows: Rows) -> str:
        number = line * len(sets) + places[rows.id]
        return f"measuring {number} of {total}: {name} on {Path(rows.source).name}"

    before, *after = measure_builds(
        registry, revision.commit, persona.without_behaviours(), measured, sets, plan,
        label=label, threads=threads, progress=progress,
    )  # fmt: skip
    known = {subject.what: one for subject, one in zip(measured, after, strict=True)} | (
        {"the persona": before} if persona.is_plain else {}
    )
    found = []
    lines: list[tuple[str | None, Persona]] = [*alone.items(), (None, persona)]
    for name, of in lines:
        what = "the persona" if name is None else one_of[_alike(persona.behaviours[name])][0]
        scores = []
        for place, rows in enumerate(sets):
            overlap = compared(registry, revision.commit, of.behaviours, rows)
            scores.append(scored(registry, of, rows, place, before, known[what], plan, overlap))
        found.append(Line(name, scores[0].build, tuple(scores)))
    return Scores(revision.commit, tuple(found), without)


def _alike(behaviour: Behaviour) -> tuple[Any, ...]:
    """What a behaviour is alone at weight 1, whatever its name."""
    return behaviour.terms


def _is_known(registry: Registry, persona: Persona, sets: Sequence[Rows]) -> bool:
    known = registry.record(build_id(persona)).get("margins", {})
    return all(rows.id in known for rows in sets)


def _kept(revision: Revision) -> tuple[list[Rows], tuple[str, ...]]:
    """The sets on which the persona's behaviours were measured, and the behaviours of which there is none."""
    registry, persona = revision.registry, revision.persona
    sets: dict[str, Rows] = {}
    without = []
    for name, behaviour in sorted(persona.behaviours.items()):
        own = {}
        for term in behaviour.terms:
            for rows_id, data in _held_out(registry.provenance(revision.commit, term.vector)).items():
                if registry.packs.has(rows_id):
                    own[rows_id] = Rows(load_rows(rows_id, registry.packs).rows, data)
        sets |= own
        if not own:
            without.append(name)
    if not sets:
        raise UsageError(
            f"no held-out rows of {', '.join(without) or 'any behaviour'} are in the registry",
            hint=f"name their files: pv eval --all {revision.name} --data ROWS.heldout.jsonl",
        )
    return list(sets.values()), tuple(without)


def _held_out(known: Provenance) -> dict[str, str]:
    """The rows on which a vector was measured when it was trained: id and name of the file."""
    found: dict[str, str] = {}
    for run in origins(known):
        match run:
            case Trained(held_out={"data_id": str(rows), "data": str(name)}) if rows in run.packs:
                found.setdefault(rows, name)
    return found
