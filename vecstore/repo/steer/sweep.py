"""sweep: a steering term at one layer after another, with one coefficient after another.

One model is loaded, once, and only if something is not known yet: what is measured of a cell is noted under the id of
its build, as any score is, so that nothing is measured twice. The control is the same persona without steering.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.disk.durable import write_file
from pv.registry.errors import DataError, UsageError
from pv.registry.persona import Persona
from pv.vecstore.activations.dose import relative_doses
from pv.vecstore.activations.extract import pairs_of
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.broken import broken_share
from pv.vecstore.evaluate.damage import Distributions
from pv.vecstore.evaluate.margins import need_pairs
from pv.vecstore.evaluate.statistics import bootstrap, share
from pv.vecstore.evaluate.steering_sweep import FEWEST_ROWS, LIMIT, Cell, Measured, Place, Sweep, cell_of
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.publish.outputs import check_outputs
from pv.vecstore.publish.steering_page import page as page_of
from pv.vecstore.publish.steering_plot import png
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.repo.measurements import Measurements
from pv.vecstore.repo.score_plan import ScorePlan
from pv.vecstore.repo.steer.gates import not_held_out
from pv.vecstore.repo.steer.one_term import one_term
from pv.vecstore.repo.steer.set import set_term
from pv.vecstore.repo.steer.swept import COEFFICIENTS, coefficients_of, part_of_neutral_set, places_of
from pv.vecstore.vectors.steering import open_steering

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.repo.repo import Repo

__all__ = ["COEFFICIENTS", "REPLIES", "TOKENS", "sweep"]

REPLIES = 12
TOKENS = 48


def sweep(
    repo: Repo,
    name: str,
    rows: Rows | str | PathLike[str],
    *,
    layers: str | Sequence[int] | None = None,
    coefficients: str | Sequence[float] = COEFFICIENTS,
    replies: int = REPLIES,
    max_tokens: int = TOKENS,
    neutral: Rows | str | PathLike[str] | None = None,
    damage: float = LIMIT,
    set: bool = False,
    plot: Path | None = None,
    page: Path | None = None,
    threads: int,
    progress: Report | None = None,
) -> Sweep:
    """See `SteeringVerbs.sweep`. Raises NotFoundError, UsageError, DataError, MissingBase."""
    if not (0 <= damage < float("inf") and replies >= 0 and max_tokens > 0):
        raise UsageError(
            f"damage {damage:g}, {replies} replies of {max_tokens} tokens: none can be below 0",
            hint="damage is in nats a token, 0.05 if nothing is said",
        )
    data = _checked(as_rows(rows))
    quiet = part_of_neutral_set() if neutral is None else as_rows(neutral)
    check_outputs(plot, page)
    with long_work(repo) as work:
        persona, steps = work.persona, coefficients_of(coefficients)
        term = persona.steering_term(name)
        known = open_steering(term.vector, persona.base, work.registry.packs)
        places = places_of(known, layers, name)
        task = _Task(work, name, data, quiet, ScorePlan(None, replies, max_tokens), threads, progress)
        try:
            cells, before = task.measured(places, steps)
        except KeyboardInterrupt as error:
            if not getattr(error, "__notes__", ()):
                error.add_note("what was measured is kept: the same command goes on with the rest")
            raise
        found = Sweep(
            work.commit,
            name,
            term.vector,
            term.positions,
            persona.steering.rule,
            Path(data.source).name,
            data.id,
            Path(quiet.source).name,
            quiet.id,
            len(quiet),
            len(before.replies),
            max_tokens,
            damage,
            bootstrap(before.margins.margin),
            share(int((before.margins.margin > 0).sum()), len(data)),
            broken_share(before.replies),
            cells,
            _notes(work, name, data),
        )
    if set and found.suggestion is not None and found.suggestion.effect.verdict == "up":
        found = found.with_set(_set(repo, work, found))
    if plot is not None:
        write_file(plot, png(found))
    if page is not None:
        write_file(page, page_of(found).encode())
    return found


@dataclass
class _Task:
    work: LongWork
    name: str
    rows: Rows
    neutral: Rows
    plan: ScorePlan
    threads: int
    progress: Report | None
    held: ExitStack = field(default_factory=ExitStack)
    model: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None

    def measured(
        self, places: Sequence[Place], coefficients: Sequence[float]
    ) -> tuple[tuple[Cell, ...], Measured]:
        """Every cell, by site and then by coefficient, and the control."""
        persona = self.work.persona
        grid = [
            (place, c, one_term(persona, self.name, c, [place.site]))
            for place in places
            for c in coefficients
        ]
        with self.held:
            unknown = [one for _, _, one in grid if not self._of(one).knows_neutral(self.neutral)]
            kept = self.held.enter_context(Distributions()) if unknown else None
            before = self._measured(persona.unsteered, "the model without steering", keep=kept)
            doses = self._doses(places)
            update = stage(self.progress, f"sweeping {self.name}", "cells", len(grid))
            cells = []
            for done, (place, c, one) in enumerate(grid, start=1):
                after = self._measured(one, self.name, against=kept)
                cells.append(cell_of(place, c, build_id(one), abs(c) * doses[place.site], after, before))
                if update is not None:
                    update(done, len(grid))
            return tuple(cells), before

    def _measured(self, persona: Persona, what: str, **distributions: Distributions | None) -> Measured:
        prompts = self.plan.prompts(self.rows)
        # Of a cell, what is said is how many are done: the stages of each would drown that.
        with self._of(persona, what, self.progress if "keep" in distributions else None) as of:
            return Measured(
                of.margins(self.rows),
                of.neutral(self.neutral, **distributions),
                of.replies(prompts, self.plan.max_tokens) if prompts else [],
            )

    def _doses(self, places: Sequence[Place]) -> dict[str, float]:
        """Relative doses of coefficient 1, noted of the model without steering: by vector, rows and positions."""
        persona, registry = self.work.persona, self.work.registry
        build, term = build_id(persona.unsteered), persona.steering_term(self.name)
        prompt = term.positions == "prompt"
        key = f"{term.vector}:{self.rows.id}:{'prompt' if prompt else 'answer'}"
        noted = registry.record(build).get("doses", {}).get(key, {})
        missing = [place.site for place in places if not isinstance(noted.get(place.site), float)]
        if missing:
            model, tokenizer = self._loaded()
            texts = [text for pair in pairs_of(model, tokenizer, self.rows) for text in pair]
            directions = open_steering(term.vector, persona.base, registry.packs)
            update = stage(self.progress, "measuring activations", "texts", len(texts))
            some = {site: directions[site] for site in missing}
            noted = {**noted, **relative_doses(model, texts, some, prompt=prompt, progress=update)}
            registry.update_record(build, {"doses": {key: noted}})
        return {place.site: float(noted[place.site]) for place in places}

    def _of(self, persona: Persona, what: str = "", progress: Report | None = None) -> Measurements:
        return Measurements(
            self.work.registry, self.work.commit, persona, what=what, threads=self.threads,
            progress=progress, loaded=self._loaded,
        )  # fmt: skip

    def _loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self.model is None:
            self.held.enter_context(torch_threads(self.threads))
            plain = self.work.persona.unsteered
            with temporary_checkpoint(
                self.work.registry, self.work.commit, plain, threads=self.threads, progress=self.progress
            ) as folder:
                said(self.progress, "loading the model")
                self.model = load(folder)
        return self.model


def _checked(rows: Rows) -> Rows:
    need_pairs(rows)
    if len(rows) < FEWEST_ROWS:
        raise DataError(
            f"{rows.source}: {len(rows)} rows are too few for a sweep: half of them choose, the others say what "
            "the choice is worth",
            hint=f"at least {FEWEST_ROWS}; 24 held-out rows are a good start",
        )
    return rows


def _notes(work: LongWork, name: str, rows: Rows) -> tuple[str, ...]:
    """What the numbers are not: of other terms, or held out."""
    found = []
    others = sorted(other for other in work.persona.steering.active if other != name)
    if others:
        found.append(f"without the other steering terms: {', '.join(others)}")
    seen = not_held_out(work.registry, work.commit, work.persona.steering_term(name).vector, rows)
    if seen.rows or seen.prompts:
        found.append(
            f"{seen.rows + seen.prompts} of {len(rows)} rows are of those that the vector was extracted from: "
            "there, the effect is not held out"
        )
    return tuple(found)


def _set(repo: Repo, work: LongWork, found: Sweep) -> str:
    """Raises UsageError if another branch is current now."""
    chosen: Any = found.suggestion
    place, coefficient = chosen.cell.place, chosen.cell.coefficient
    if repo.head.branch != work.branch:
        raise UsageError(
            f"the current branch is {repo.head.branch} now: nothing was set",
            hint=f"pv switch {work.branch}, then pv steer set {found.name} {coefficient:g} --site {place.site}",
        )
    now, then = repo.at("HEAD").persona, work.persona
    kept = [(p.steering.rule, p.steering.terms.get(found.name)) for p in (now, then)]
    if kept[0] != kept[1]:
        raise UsageError(
            f"{found.name} was changed while it was swept: nothing was set", hint="run the command again"
        )
    return set_term(repo, found.name, coefficient, sites=[place.site]).commit
