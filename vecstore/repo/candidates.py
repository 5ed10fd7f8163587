"""Candidates: a behaviour's vectors in smaller encodings, and how much of its effect each of them keeps.

They live in a store of their own until one is chosen, so a search leaves nothing behind. Kept = effect of the
behaviour with the derived vectors / its effect with the vectors that it has, each alone on the base, row by row
on held-out rows; it counts as kept if the whole interval is at or above the share asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

import numpy as np

from pv.registry.packs.store import PackStore
from pv.registry.persona import Behaviour, Persona, Term
from pv.vecstore.data.overlap import Overlap
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, effect, kept
from pv.vecstore.progress import Progress, Report
from pv.vecstore.repo.long_work import LongWork
from pv.vecstore.repo.measurements import Measurements
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.training_rows import compared
from pv.vecstore.vectors.derive import Derived, EncodingSpec, Error, derive
from pv.vecstore.vectors.encodings import noted

__all__ = ["Candidate", "Candidates", "Trial", "next_try", "smallest"]

TAU_BYTES = 4  # of one element


@dataclass(frozen=True, slots=True)
class Candidate:
    """A behaviour's vectors in one encoding: {the vector that it has: the one derived from it}."""

    spec: EncodingSpec
    derived: Mapping[str, Derived]
    stored_bytes: int
    error: Error

    @property
    def differs(self) -> bool:
        """False if the vectors are those that there were."""
        return any(old != new.manifest.id for old, new in self.derived.items())

    def in_place_of(self, behaviour: Behaviour) -> Behaviour:
        """The behaviour with these vectors."""
        terms = (Term(term.coefficient, self.derived[term.vector].manifest.id) for term in behaviour.terms)
        return replace(behaviour, terms=tuple(terms))

    def to_json(self) -> dict[str, Any]:
        return {
            "encoding": self.spec.text,
            "stored_bytes": self.stored_bytes,
            "error": self.error.to_json(),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """A candidate on held-out rows. `kept` is None where the behaviour has no certain effect to keep."""

    candidate: Candidate
    effect: Interval
    kept: Interval | None

    def keeps(self, share: float) -> bool:
        return self.kept is not None and self.kept.low >= share

    def to_json(self) -> dict[str, Any]:
        return {
            **self.candidate.to_json(),
            "effect": self.effect.to_json(),
            "kept": None if self.kept is None else self.kept.to_json(),
        }


def smallest(trials: Iterable[Trial], share: float) -> Trial | None:
    """The smallest that keeps the share, if one does."""
    good = [trial for trial in trials if trial.keeps(share)]
    return min(good, key=lambda trial: trial.candidate.stored_bytes, default=None)


def next_try(trials: Iterable[Trial], share: float) -> EncodingSpec | None:
    """Halfway from the smallest that keeps the share to the next smaller one of its kind that does not."""
    trials = sorted(trials, key=lambda trial: -trial.candidate.stored_bytes)
    best = smallest(trials, share)
    if best is None:
        return None
    tried = {trial.candidate.spec.text for trial in trials}
    kind = best.candidate.spec.encoding
    smaller = [trial.candidate.spec for trial in trials[trials.index(best) + 1 :]]
    nearest = next((spec for spec in smaller if spec.encoding == kind), None)
    between = best.candidate.spec.halfway(nearest) if nearest else None
    return between if between and between.text not in tried else None


class Candidates:
    """One behaviour of one commit, to be re-encoded; a context manager, because candidates are temporary."""

    def __init__(
        self, work: LongWork, name: str, *, threads: int = 2, persona: Persona | None = None
    ) -> None:
        """`persona` has the behaviour, and an output of its own; if nothing is said it is that of the commit."""
        self.work, self.registry, self.name, self.threads = work, work.registry, name, threads
        self._persona = work.persona if persona is None else persona
        self.behaviour = self._persona.behaviour(name)
        self.vectors = tuple(sorted({term.vector for term in self.behaviour.terms}))
        self.stored_bytes = sum(self.registry.packs.size(vector) for vector in self.vectors)
        self._stack = ExitStack()
        self._margins: dict[str, tuple[Margins, Margins]] = {}

    @property
    def encodings(self) -> tuple[str, ...]:
        """What the behaviour's vectors are kept as now."""
        return tuple(sorted({self.registry.vector(self.work.commit, v).encoding for v in self.vectors}))

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(self.registry.packs.scratch("derive"))
        self._scratch = PackStore(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def is_already(self, spec: EncodingSpec) -> bool:
        """True if the behaviour's vectors are in that encoding. Not known of `float`, which notes no dtype."""
        wanted = spec.encoding, noted(spec.options)
        manifests = [self.registry.vector(self.work.commit, vector) for vector in self.vectors]
        return spec.encoding != "float" and all((m.encoding, dict(m.options)) == wanted for m in manifests)

    def gains(self, candidate: Candidate) -> bool:
        """True if it is smaller than what the behaviour has."""
        return candidate.stored_bytes < self.stored_bytes

    def make(self, spec: EncodingSpec, *, progress: Progress | None = None) -> Candidate:
        """The behaviour's vectors in another encoding. Progress is in bytes of tau as fp32."""
        made: dict[str, Derived] = {}
        with opened(self.registry, self.work.commit, [self._alone(self.behaviour)]) as at:
            sizes = {
                v: sum(at.base.manifest.tensors[name].numel for name in at.vectors[v].manifest.tensors)
                for v in self.vectors
            }
            total, before = sum(sizes.values()), 0

            def report(done: int, _: int) -> None:
                if progress:
                    progress(TAU_BYTES * (before + done), TAU_BYTES * total)

            report(0, 0)

            for vector in self.vectors:
                made[vector] = derive(
                    at.vectors[vector], spec, self._scratch, threads=self.threads, progress=report
                )
                before += sizes[vector]
        stored = sum(self._scratch.size(d.manifest.id) for d in made.values())
        worst = Error(
            max(d.error.max_abs for d in made.values()), max(d.error.relative_l2 for d in made.values())
        )
        return Candidate(spec, made, stored, worst)

    def overlap(self, rows: Rows) -> Overlap:
        """Which of the rows the behaviour was trained on."""
        persona = self._alone(self.behaviour)
        return compared(self.registry, self.work.commit, persona.behaviours, rows)

    def effect(self, rows: Rows, *, progress: Report | None = None) -> Interval:
        """The effect of the behaviour as it is, alone on its base."""
        before, alone = self._known(rows, progress)
        return effect(alone, before)

    def try_out(self, candidate: Candidate, rows: Rows, *, progress: Report | None = None) -> Trial:
        """The effect of the behaviour in another encoding, and how much of its effect that is."""
        before, alone = self._known(rows, progress)
        other = self._alone(candidate.in_place_of(self.behaviour))
        after = self._measure(other, rows, progress, f"{self.name} as {candidate.spec.text}")
        return Trial(candidate, effect(after, before), kept(after, alone, before))

    def adopt(self, candidate: Candidate) -> None:
        """Copy the candidate's packs into the registry. A commit is to name them."""
        for derived in candidate.derived.values():
            vector = derived.manifest.id
            with (
                self._scratch.open_path(vector).open("rb") as pack,
                self.registry.packs.writer(vector) as out,
            ):
                shutil.copyfileobj(pack, out.file)

    def _known(self, rows: Rows, progress: Report | None) -> tuple[Margins, Margins]:
        if rows.id not in self._margins:
            alone = self._alone(self.behaviour)
            before = self._measure(alone.without_behaviours(), rows, progress)
            self._margins[rows.id] = before, self._measure(alone, rows, progress, self.name)
        return self._margins[rows.id]

    def _measure(
        self, persona: Persona, rows: Rows, progress: Report | None, what: str = "the base"
    ) -> Margins:
        with self.measurements(persona, what, progress) as of:
            return of.margins(rows)

    def measurements(self, persona: Persona, what: str, progress: Report | None = None) -> Measurements:
        """Of a persona that may have candidates in it."""
        return Measurements(
            self.registry, self.work.commit, persona, what=what, threads=self.threads, progress=progress,
            packs=self._scratch,
        )  # fmt: skip

    def alone(self, candidate: Candidate | None = None) -> Persona:
        """The behaviour on its base, as it is or as a candidate has it."""
        return self._alone(candidate.in_place_of(self.behaviour) if candidate else self.behaviour)

    def elements(self) -> int:
        """Numbers in the behaviour's vectors, whatever they are kept as."""
        rows = self.registry.base(self.work.commit).tensors
        manifests = [self.registry.vector(self.work.commit, vector) for vector in self.vectors]
        return sum(rows[name].numel for manifest in manifests for name in manifest.tensors)

    def filled(self, candidate: Candidate) -> float:
        """The share of the candidate's numbers that are not 0."""
        found = 0
        with opened(self.registry, self.work.commit, [self.alone(candidate)], packs=self._scratch) as at:
            for vector in at.vectors.values():
                found += sum(int(np.count_nonzero(vector.tau(name))) for name in vector.manifest.tensors)
        return found / self.elements()

    def _alone(self, behaviour: Behaviour) -> Persona:
        """At weight 1, but with its module factors: what is compared is the behaviour as the persona uses it."""
        whole = Behaviour(1.0, behaviour.terms, behaviour.modules)
        return self._persona.without_behaviours().with_behaviour(self.name, whole)
