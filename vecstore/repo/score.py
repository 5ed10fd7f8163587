"""score: what a revision does on held-out rows, with its base as the control.

Effect = margin of the persona minus margin of its base, row by row. Margins are kept per build id, so that
nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Progress, Report, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.thread_count import thread_count

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Score", "measure", "measure_sets", "score", "score_persona", "scored"]

FIELDS = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")


@dataclass(frozen=True, slots=True)
class Score:
    """What held-out rows say of one build. Margins in nats, summed over an answer's tokens."""

    data: str
    data_id: str
    build: str
    margin: Interval
    base_margin: Interval
    effect: Interval
    effect_per_token: Interval

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the build's record, and in a vector's provenance."""
        return {
            "data": self.data,
            "data_id": self.data_id,
            "n": self.effect.n,
            "verdict": self.effect.verdict,
            **{
                key: {"mean": i.mean, "low": i.low, "high": i.high}
                for key, i in (
                    ("margin", self.margin),
                    ("base_margin", self.base_margin),
                    ("effect", self.effect),
                    ("effect_per_token", self.effect_per_token),
                )
            },
        }

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import score_html

        return score_html(self)


def score(
    revision: Revision, rows: Rows, *, dtype: str | None = None, threads: int, progress: Report | None = None
) -> Score:
    """Measure a revision on rows with chosen and rejected answers. Raises UsageError, DataError, MissingBase."""
    persona = revision.persona.with_output(dtype=dtype)
    data = Path(rows.source).name
    update = stage(progress, f"measuring on {data}", "answers")
    return score_persona(revision.registry, revision.commit, persona, rows, threads=threads, progress=update)


def score_persona(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Score:
    """Measure persona and base on the same rows; the score is noted in the build's record."""
    before = measure(registry, commit, persona.without_behaviours(), rows, threads=threads, progress=progress)
    after = measure(registry, commit, persona, rows, threads=threads, progress=progress)
    return scored(registry, persona, rows, before, after)


def scored(registry: Registry, persona: Persona, rows: Rows, before: Margins, after: Margins) -> Score:
    """The score that margins of base and persona give; noted in the build's record."""
    result = Score(
        Path(rows.source).name,
        rows.id,
        build_id(persona),
        margin=bootstrap(after.margin),
        base_margin=bootstrap(before.margin),
        effect=effect(after, before),
        effect_per_token=effect(after, before, per_token=True),
    )
    registry.update_record(result.build, {"scores": {rows.id: result.to_json()}})
    return result


def measure(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
    packs: PackStore | None = None,
) -> Margins:
    """Margins of the persona's build, from its record if they are known. Raises UsageError.

    `packs` holds vectors that are not in the registry yet.
    """
    (found,) = measure_sets(
        registry, commit, persona, [rows], threads=threads, progress=lambda rows: progress, packs=packs
    )
    return found


def measure_sets(
    registry: Registry,
    commit: str,
    persona: Persona,
    sets: Sequence[Rows],
    *,
    threads: int | None = None,
    progress: Callable[[Rows], Progress | None] = lambda rows: None,
    packs: PackStore | None = None,
) -> list[Margins]:
    """The same on several sets of rows, for which the model is loaded once. `progress` gives each set's."""
    for rows in sets:
        if any(row.rejected is None for row in rows):
            hint = "an effect is chosen against rejected"
            raise UsageError(f"{rows.source}: these rows have no rejected answers", hint=hint)
    build = build_id(persona)
    known = registry.record(build).get("margins", {})
    with ExitStack() as held:
        model = None
        for rows in sets:
            if rows.id in known:
                continue
            update = progress(rows)
            if model is None:
                held.enter_context(torch_threads(threads))
                checkpoint = temporary_checkpoint(
                    registry, commit, persona, threads=thread_count(threads), packs=packs
                )
                model, tokenizer = load(held.enter_context(checkpoint))
            found = margins(model, tokenizer, rows, progress=update)
            document = {field: [float(x) for x in getattr(found, field)] for field in FIELDS}
            known = registry.update_record(build, {"margins": {rows.id: document}})["margins"]
    return [_margins(known[rows.id]) for rows in sets]


def _margins(document: Mapping[str, Any]) -> Margins:
    return Margins(*(np.asarray(document[field], np.float64) for field in FIELDS))
