"""compare: does a behaviour do to activations what a steering term does?

The base runs over texts as it is and steered, then the persona with that behaviour alone at weight 1. Layer by layer,
the shift by the behaviour is held against the shift by the term, as `pv diff --against` holds one against a direction.

Whatever is added to a layer, later layers answer in part with the same shift: two random directions look alike there.
That part does not turn with the sign. So the term is applied with its sign turned, too, and what it does is half the
difference; where it is added, that is the direction itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, UsageError
from pv.vecstore.activations.shift import Means, means, shift, texts_of
from pv.vecstore.activations.sites import sites_of
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.moved import DRAWS, Movement, moved
from pv.vecstore.progress import Report, stage
from pv.vecstore.repo.diff_against import chosen_texts
from pv.vecstore.repo.running import running_persona
from pv.vecstore.repo.steer.applied import applied
from pv.vecstore.repo.steer.term_at import TermAt, term_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from pv.vecstore.activations.reading import Text
    from pv.vecstore.repo.reading import Reading

__all__ = ["Likeness", "compare"]


@dataclass(frozen=True, slots=True)
class Likeness:
    """What `behaviour` does to activations, along what `term` does: 1 is as far as the term moves them.

    Layers before the first steered one, which the term does not move, are not in it.
    """

    behaviour: str
    term: str
    texts: str
    texts_id: str
    n: int
    movement: Movement
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "behaviour": self.behaviour,
            "term": self.term,
            "texts": self.texts,
            "texts_id": self.texts_id,
            "n": self.n,
            **self.movement.to_json(),
            "notes": list(self.notes),
        }


def compare(
    repo: Reading,
    behaviour: str,
    term: str,
    *,
    sites: Sequence[str] | None = None,
    texts: Rows | None = None,
    threads: int | None = None,
    progress: Report | None = None,
) -> Likeness:
    """[REV:]BEHAVIOUR with [REV:]TERM, at the output of every layer, or at `sites`.

    Raises NotFoundError, UnknownBehaviour, MissingBase; BaseMismatch if they are of different bases; UsageError for a
    term that moves nothing.
    """
    rows = chosen_texts(texts)
    revision, _, name = behaviour.rpartition(":")
    at = repo.at(revision or "HEAD")
    alone, own = at.alone(name), term_at(repo, term)
    if own.base != alone.base:
        raise BaseMismatch(
            f"{term} is of base {own.base[:12]}, {behaviour} of base {alone.base[:12]}",
            hint="compare what belongs to one base",
        )
    with running_persona(
        at.registry,
        at.commit,
        alone.without_behaviours(),
        what="the base",
        threads=threads,
        progress=progress,
    ) as (model, tokenizer):
        ran = texts_of(model, tokenizer, rows)
        where = sites_of(model, list(sites or ()))
        before = _means(model, ran, where, "the base", progress, draws=DRAWS)
        with applied(model, own.alone, repo.registry.packs):
            there = _means(model, ran, where, f"the base with {term}", progress)
        with applied(model, own.turned, repo.registry.packs):
            back = _means(model, ran, where, f"the base with {term} turned", progress)
        del model, tokenizer
    with running_persona(
        at.registry, at.commit, alone, what=behaviour, threads=threads, progress=progress
    ) as (model, _):
        by_behaviour = shift(before, _means(model, ran, where, behaviour, progress))
        del model
    by_term = shift(back, there)
    directions = {site: mean / 2 for site in where if (mean := by_term.mean(site)).any()}
    if not directions:
        raise UsageError(
            f"{term} moves no activation on these texts, so nothing can be like it", hint=_why(own)
        )
    movement = moved(by_behaviour, directions, before.drawn)
    return Likeness(behaviour, term, Path(rows.source).name, rows.id, len(rows), movement, _notes(own))


def _means(
    model: PreTrainedModel,
    texts: Sequence[Text],
    sites: Sequence[str],
    what: str,
    progress: Report | None,
    *,
    draws: int = 0,
) -> Means:
    said = stage(progress, f"reading {what}", "texts", len(texts))
    return means(model, texts, sites, draws=draws, progress=said)


def _why(own: TermAt) -> str:
    if not own.term.coefficient:
        return "its coefficient is 0: `pv steer set` changes it"
    if own.term.when is not None:
        return "its condition holds for none of the prompts: name texts for which it does, with --texts"
    return "name sites that are behind where it steers"


def _notes(own: TermAt) -> tuple[str, ...]:
    if own.term.retired_by is not None:
        return (f"{own.name} is retired by {own.term.retired_by}: compared as it was",)
    return ()
