"""A persona's margins on held-out rows, kept per build id so that nothing is measured twice.

Effect = margin of the persona minus margin of its base, row by row; the base is the control.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.fingerprint import Progress
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins, margins
from pv.vecstore.evaluate.statistics import Interval, bootstrap, effect
from pv.vecstore.merge.build import build_id
from pv.vecstore.models.load import load
from pv.vecstore.repo.opening import checkpoint_of

__all__ = ["Score", "measure", "score"]

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


def score(
    registry: Registry,
    commit: str,
    persona: Persona,
    rows: Rows,
    data: str,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Score:
    """Measure persona and base on the same rows; the score is noted in the build's record."""
    plain = replace(persona, behaviours={})
    before = measure(registry, commit, plain, rows, threads=threads, progress=progress)
    after = measure(registry, commit, persona, rows, threads=threads, progress=progress)
    result = Score(
        data,
        rows.id,
        build_id(persona),
        margin=bootstrap(after.margin),
        base_margin=bootstrap(before.margin),
        effect=effect(after, before),
        effect_per_token=effect(after, before, per_token=True),
    )
    scores = {**registry.record(result.build).get("scores", {}), rows.id: result.to_json()}
    registry.update_record(result.build, {"scores": scores})
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
    if any(row.rejected is None for row in rows):
        raise UsageError("these rows have no rejected answers", hint="an effect is chosen against rejected")
    build = build_id(persona)
    known = registry.record(build).get("margins", {})
    if rows.id in known:
        return _margins(known[rows.id])
    import torch

    with ExitStack() as stack:
        folder = stack.enter_context(checkpoint_of(registry, commit, persona, packs=packs))
        if threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(threads)
        model, tokenizer = load(folder)
        found = margins(model, tokenizer, rows, progress=progress)
    document = {field: [float(x) for x in getattr(found, field)] for field in FIELDS}
    known = registry.record(build).get("margins", {})
    registry.update_record(build, {"margins": {**known, rows.id: document}})
    return found


def _margins(document: Mapping[str, Any]) -> Margins:
    return Margins(*(np.asarray(document[field], np.float64) for field in FIELDS))
