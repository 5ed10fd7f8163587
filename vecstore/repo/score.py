"""score: what a revision does on held-out rows, with its base as the control.

Effect = margin of the persona minus margin of its base, row by row. Margins are kept per build id, so that
nothing is measured twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins, margins, need_pairs
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.thread_count import thread_count
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.revision import Revision

__all__ = ["Score", "measure", "measure_sets", "score", "score_persona", "scored", "with_base"]

MOST = 1e12  # nats or tokens of an answer: what is more was never measured
FIELDS = ("chosen", "rejected", "chosen_tokens", "rejected_tokens")


@dataclass(frozen=True, slots=True)
class Score:
    """What rows say of one build. Margins in nats, summed over an answer's tokens.

    `overlap`: which of the rows were trained on, so that they are not held out; None if nobody has compared them.
    """

    data: str
    data_id: str
    build: str
    margin: Interval
    base_margin: Interval
    effect: Interval
    effect_per_token: Interval
    overlap: Overlap | None = None

    def to_json(self) -> dict[str, Any]:
        """As it is kept in the build's record, and in a vector's provenance."""
        return {
            "data": self.data,
            "data_id": self.data_id,
            "n": self.effect.n,
            "verdict": self.effect.verdict,
            "margin": self.margin.ends(),
            "base_margin": self.base_margin.ends(),
            "effect": self.effect.ends(),
            "effect_per_token": self.effect_per_token.ends(),
            "overlap": self.overlap.to_json() if self.overlap else None,
        }

    def _repr_html_(self) -> str:
        from pv.vecstore.repo.html import score_html

        return score_html(self)


def score(
    revision: Revision, rows: Rows, *, dtype: str | None = None, threads: int, progress: Report | None = None
) -> Score:
    """Measure a revision on rows with chosen and rejected answers. Raises UsageError, DataError, MissingBase."""
    registry, commit = revision.registry, revision.commit
    persona = revision.persona.with_output(dtype=dtype)
    known = compared(registry, commit, persona.behaviours, rows)
    return score_persona(registry, commit, persona, rows, overlap=known, threads=threads, progress=progress)


def score_persona(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    overlap: Overlap | None = None,
    what: str = "",
    threads: int | None = None,
    progress: Report | None = None,
) -> Score:
    """Measure persona and base on the same rows; the score is noted in the build's record. `what`: see `measure`."""
    before, after = with_base(registry, commit, persona, rows, what=what, threads=threads, progress=progress)
    return scored(registry, persona, rows, before, after, overlap)


def with_base(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    *,
    what: str = "",
    threads: int | None = None,
    progress: Report | None = None,
) -> tuple[Margins, Margins]:
    """Margins of the base and of the persona, each measured once; the same ones where no behaviour has a weight."""
    base = persona.without_behaviours()
    before = measure(registry, commit, base, rows, what="the base", threads=threads, progress=progress)
    if persona.is_base:
        return before, before
    return before, measure(registry, commit, persona, rows, what=what, threads=threads, progress=progress)


def scored(
    registry: Registry,
    persona: Persona,
    rows: Rows,
    before: Margins,
    after: Margins,
    overlap: Overlap | None = None,
) -> Score:
    """The score that margins of base and persona give; noted in the build's record."""
    result = Score(
        Path(rows.source).name,
        rows.id,
        build_id(persona),
        margin=bootstrap(after.margin),
        base_margin=bootstrap(before.margin),
        effect=effect(after, before),
        effect_per_token=effect(after, before, per_token=True),
        overlap=overlap,
    )
    registry.update_record(result.build, {"scores": {rows.id: result.to_json()}})
    return result


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
    (found,) = measure_sets(
        registry, commit, persona, [rows], what=what, threads=threads, progress=progress, packs=packs
    )
    return found


def measure_sets(
    registry: Registry,
    commit: str,
    persona: Persona,
    sets: Sequence[Rows],
    *,
    what: str = "",
    label: Callable[[Rows], str] | None = None,
    threads: int | None = None,
    progress: Report | None = None,
    packs: PackStore | None = None,
) -> list[Margins]:
    """The same on several sets of rows, for which the model is loaded once. `label` names each set's stage."""
    for rows in sets:
        need_pairs(rows)
    build = build_id(persona)
    what = what or ", ".join(sorted(persona.behaviours)) or "the base"
    known = registry.record(build).get("margins")
    done = {rows.id: found for rows in sets if (found := _margins(known, rows)) is not None}
    with ExitStack() as held:
        model = None
        for rows in sets:
            if rows.id in done:
                continue
            if model is None:
                checkpoint = temporary_checkpoint(
                    registry, commit, persona, what=what, threads=thread_count(threads), progress=progress,
                    packs=packs,
                )  # fmt: skip
                folder = held.enter_context(checkpoint)
                held.enter_context(torch_threads(threads))
                said(progress, "loading the model")
                model, tokenizer = load(folder)
            name = label(rows) if label else f"measuring {what} on {Path(rows.source).name}"
            found = margins(model, tokenizer, rows, progress=stage(progress, name, "rows", len(rows)))
            document = {field: [float(x) for x in getattr(found, field)] for field in FIELDS}
            registry.update_record(build, {"margins": {rows.id: document}})
            done[rows.id] = found
    return [done[rows.id] for rows in sets]


def _margins(known: object, rows: Rows) -> Margins | None:
    """What a record has of these rows; None if it is not in this form: it may be anybody's."""
    document = known.get(rows.id) if isinstance(known, dict) else None
    if not isinstance(document, dict):
        return None
    fields = [document.get(field) for field in FIELDS]
    if not all(_are_numbers(numbers, len(rows)) for numbers in fields):
        return None
    found = Margins(*(np.asarray(numbers, np.float64) for numbers in fields))
    return found if min(found.chosen_tokens.min(), found.rejected_tokens.min()) >= 1 else None


def _are_numbers(value: object, length: int) -> bool:
    return (
        isinstance(value, list)
        and len(value) == length
        and all(type(x) in (int, float) and abs(x) < MOST for x in value)
    )
