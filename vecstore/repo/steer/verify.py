"""verify: is it the direction that does it? Against noise of the same norm, shuffled labels, and a plain request.

The controls are applied as the term is: same sites, coefficient and positions, and of the same norm at each site.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.packs.store import PackStore
from pv.registry.steering import Steering
from pv.vecstore.activations.extract import activations, pairs_of
from pv.vecstore.data.rows import Rows, as_rows
from pv.vecstore.evaluate.broken import broken_share, surely_above
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, effect
from pv.vecstore.models.load import load
from pv.vecstore.models.threads import torch_threads
from pv.vecstore.progress import Report, said, stage
from pv.vecstore.repo.build import temporary_checkpoint
from pv.vecstore.repo.measurements import Measurements
from pv.vecstore.repo.score import Score, measure_builds, scored
from pv.vecstore.repo.score_plan import ScorePlan, Subject
from pv.vecstore.repo.steer.gates import (
    Condition,
    Passage,
    Trial,
    damage_json,
    extracted_from,
    not_held_out,
    trial,
    unseen,
)
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import open_steering, write_steering

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from pv.vecstore.repo.repo import Repo

__all__ = ["DAMAGE", "verify"]

DAMAGE = 0.1
"""Nats a token that a term may cost, on plain answers and on plain text, unless told otherwise."""
FEWEST = 4  # random directions


@dataclass(frozen=True, slots=True)
class _Controls:
    """Mean effects, in nats, of random directions and of directions from shuffled labels; of asking for it."""

    random: list[float]
    shuffled: list[float]
    prompt: Interval | None


def verify(
    repo: Repo,
    name: str,
    rows: Rows | str | PathLike[str],
    *,
    randoms: int = 8,
    shuffles: int = 4,
    prompt: str | None = None,
    most_damage: float = DAMAGE,
    plan: ScorePlan | None = None,
    message: str | None = None,
    threads: int,
    progress: Report | None = None,
) -> Passage:
    """A tested term against its controls; what it costs; whether its replies break. Raises UsageError before `test`."""
    if randoms < FEWEST or shuffles < 0:
        raise UsageError(
            f"fewer than {FEWEST} random directions are no control",
            hint="8 are drawn where nobody says how many",
        )
    data, plan = as_rows(rows), plan or ScorePlan()
    with trial(repo, name) as of:
        of.needs("tested")
        base = of.alone.without_behaviours()
        subjects = [Subject(f"steered by {name}", of.alone)]
        if prompt is not None:
            subjects.append(Subject("the base with a system prompt", base, system=prompt))
        before, after, *asked = measure_builds(
            of.registry, of.commit, base, subjects, [data], plan, threads=threads, progress=progress
        )
        known = not_held_out(of.registry, of.commit, of.term.vector, data)
        score = scored(of.registry, of.alone, data, 0, before, after, plan, known)
        noise, chance = _measured(of, data, randoms, shuffles, threads, progress)
        controls = _Controls(
            [effect(one, before.margins[0]).mean for one in noise],
            [effect(one, before.margins[0]).mean for one in chance],
            effect(asked[0].margins[0], before.margins[0]) if asked else None,
        )
        own, broken = broken_share(before.replies[0]), broken_share(after.replies[0])
        conditions = [unseen(data, known), *_conditions(score, controls, most_damage)]
        if own is not None and broken is not None:
            conditions.append(
                Condition(
                    f"{broken.mean:.0%} of {broken.n} replies are broken (empty, or in a loop), of the base's "
                    f"{own.mean:.0%}: not more for certain",
                    not surely_above(broken, own),
                )
            )
        evidence: dict[str, Any] = {
            "data": score.data,
            "data_id": score.data_id,
            "n": score.effect.n,
            "effect": score.effect.ends(),
            "random": controls.random,
            "shuffled": controls.shuffled,
            "prompt": None if controls.prompt is None else {"text": prompt, **controls.prompt.ends()},
            "damage": damage_json(score.damage),
            "most_damage": most_damage,
            "broken": None if own is None or broken is None else [broken.mean, own.mean],
        }
        passage = Passage("verified", name, tuple(conditions), evidence, score, notes=_notes(score, controls))
        return of.land(passage, message=message)


def _conditions(score: Score, controls: _Controls, most_damage: float) -> Iterator[Condition]:
    effect_ = score.effect
    yield Condition(
        f"effect {effect_.mean:+.2f} [{effect_.low:+.2f}, {effect_.high:+.2f}] nats: its whole interval above all "
        f"{len(controls.random)} random directions of the same norm (at most {max(controls.random):+.2f})",
        effect_.low > max(controls.random),
    )
    if controls.shuffled:
        yield Condition(
            f"and above {len(controls.shuffled)} directions from shuffled labels, as long "
            f"(at most {max(controls.shuffled):+.2f})",
            effect_.low > max(controls.shuffled),
        )
    else:
        yield Condition("no directions from shuffled labels to compare with", True)
    lost = [] if score.damage is None else [score.damage.answers, score.damage.text]
    for one in (one for one in lost if one is not None):
        what = "answers" if score.damage and one is score.damage.answers else "text"
        yield Condition(
            f"damage to plain {what} {one.mean:+.4f} nats a token: at most {most_damage:g}",
            one.mean <= most_damage,
        )


def _notes(score: Score, controls: _Controls) -> tuple[str, ...]:
    told = controls.prompt
    if told is None or told.mean < score.effect.mean:
        return ()
    return (
        f"asking for it in the system prompt has an effect of {told.mean:+.2f} nats, no less than the vector's "
        f"{score.effect.mean:+.2f}",
    )


def _measured(
    of: Trial, rows: Rows, randoms: int, shuffles: int, threads: int, progress: Report | None
) -> tuple[list[Margins], list[Margins]]:
    """Margins under random directions, and under those of shuffled labels; one model is loaded for all of them."""
    plain = of.alone.without_behaviours()
    with (
        torch_threads(threads),
        temporary_checkpoint(
            of.registry, of.commit, plain, what="the base", threads=threads, progress=progress
        ) as folder,
        of.registry.packs.scratch("controls") as scratch,
    ):
        said(progress, "loading the model")
        loaded, store = load(folder), PackStore(scratch)
        noise, chance = [], []
        for draw in range(1, randoms + 1):
            what = f"random direction {draw} of {randoms}"
            with Measurements(
                of.registry, of.commit, of.alone, what=what, random=draw, loaded=loaded, progress=progress
            ) as one:
                noise.append(one.margins(rows))
        for seed, directions in enumerate(_shuffled(of, loaded, shuffles, progress), start=1):
            manifest = write_steering(directions, of.alone.base, store)
            term = replace(
                of.term, vector=manifest.id, sites=tuple(sorted(directions)), evidence={}, retired_by=None
            )
            persona = replace(plain, steering=Steering.of(of.alone.steering.rule, {of.name: term}))
            what = f"shuffled labels {seed} of {shuffles}"
            with Measurements(
                of.registry, of.commit, persona, what=what, loaded=loaded, packs=store, progress=progress
            ) as one:
                chance.append(one.margins(rows))
    return noise, chance


def _shuffled(
    of: Trial,
    loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase],
    shuffles: int,
    progress: Report | None,
) -> list[Mapping[str, F32]]:
    """Directions of the extraction's pairs with random labels, by its own method, as long as the term's."""
    known = extracted_from(of.registry, of.commit, of.term.vector)
    if not known or not shuffles:
        return []
    origin, rows = known[0]
    own = open_steering(of.term.vector, of.persona.base, of.registry.packs)
    sites = [site for site in own if of.term.sites is None or site in of.term.sites]
    model, tokenizer = loaded
    pairs = pairs_of(model, tokenizer, rows)
    update = stage(progress, "reading the pairs again", "texts", 2 * len(pairs))
    found = activations(model, pairs, sites, read=origin.read, same_token=True, progress=update)
    made: list[Mapping[str, F32]] = []
    for seed in range(1, shuffles + 1):
        drawn = found.shuffled(seed, origin.method)
        norms = {site: float(np.linalg.norm(one)) for site, one in drawn.items()}
        made.append(
            {
                site: one * np.float32(np.linalg.norm(own[site]) / max(norms[site], 1e-30))
                for site, one in drawn.items()
            }
        )
    return made
