"""Packing a behaviour: its vectors in smaller encodings, and how much of its effect each of them keeps.

Candidates live in a store of their own until one is chosen, so a search leaves nothing behind. Kept = effect
of the behaviour with the derived vectors / its effect with the vectors that it has, each alone on the base,
row by row on held-out rows; it counts as kept if the whole interval is at or above the share asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from pv.registry.errors import NotFoundError, UsageError
from pv.registry.manifest import VectorManifest
from pv.registry.packs.store import PackStore
from pv.registry.persona import Behaviour, Persona, Term
from pv.registry.registry import Registry
from pv.vecstore.checkpoints.fingerprint import Progress
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import Margins
from pv.vecstore.evaluate.statistics import Interval, effect, kept
from pv.vecstore.repo.opening import opened
from pv.vecstore.repo.score import measure
from pv.vecstore.vectors.derive import Derived, Error, Recipe, derive
from pv.vecstore.vectors.encodings import noted

__all__ = ["Candidate", "Packing", "Trial", "next_try", "smallest"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A behaviour's vectors in one encoding: {the vector that it has: the one derived from it}."""

    recipe: Recipe
    derived: Mapping[str, Derived]
    stored_bytes: int
    error: Error

    @property
    def differs(self) -> bool:
        """False if the vectors are those that there were."""
        return any(old != new.manifest.id for old, new in self.derived.items())

    def to_json(self) -> dict[str, Any]:
        return {
            "encoding": self.recipe.text,
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


def next_try(trials: Iterable[Trial], share: float) -> Recipe | None:
    """Halfway from the smallest that keeps the share to the next smaller one of its kind that does not."""
    trials = sorted(trials, key=lambda trial: -trial.candidate.stored_bytes)
    best = smallest(trials, share)
    if best is None:
        return None
    tried = {trial.candidate.recipe.text for trial in trials}
    kind = best.candidate.recipe.encoding
    smaller = [trial.candidate.recipe for trial in trials[trials.index(best) + 1 :]]
    nearest = next((recipe for recipe in smaller if recipe.encoding == kind), None)
    between = best.candidate.recipe.halfway(nearest) if nearest else None
    return between if between and between.text not in tried else None


class Packing:
    """One behaviour of one commit, to be packed; a context manager, because candidates are temporary."""

    def __init__(self, registry: Registry, commit: str, name: str, *, threads: int = 2) -> None:
        self.registry, self.commit_id, self.name, self.threads = registry, commit, name, threads
        self.persona = registry.persona(commit)
        self.behaviour = self.persona.behaviour(name)
        self.vectors = tuple(sorted({term.vector for term in self.behaviour.terms}))
        self.stored_bytes = sum(registry.packs.size(vector) for vector in self.vectors)
        self._stack = ExitStack()
        self._margins: dict[str, tuple[Margins, Margins]] = {}

    @property
    def encodings(self) -> tuple[str, ...]:
        """What the behaviour's vectors are kept as now."""
        return tuple(sorted({self.registry.vector(self.commit_id, v).encoding for v in self.vectors}))

    def __enter__(self) -> Self:
        folder = self._stack.enter_context(self.registry.packs.scratch("derive"))
        self._scratch = PackStore(folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def is_already(self, recipe: Recipe) -> bool:
        """True if the behaviour's vectors are in that encoding. Not known of `float`, which notes no dtype."""
        wanted = recipe.encoding, noted(recipe.options)
        manifests = [self.registry.vector(self.commit_id, vector) for vector in self.vectors]
        return recipe.encoding != "float" and all((m.encoding, dict(m.options)) == wanted for m in manifests)

    def gains(self, candidate: Candidate) -> bool:
        """True if it is smaller than what the behaviour has."""
        return candidate.stored_bytes < self.stored_bytes

    def make(self, recipe: Recipe, *, progress: Progress | None = None) -> Candidate:
        """The behaviour's vectors in another encoding."""
        made: dict[str, Derived] = {}
        with opened(self.registry, self.commit_id, [self._alone(self.behaviour)]) as at:
            sizes = {
                v: sum(at.base.manifest.tensors[name].numel for name in at.vectors[v].manifest.tensors)
                for v in self.vectors
            }
            total, before = sum(sizes.values()), 0

            def report(done: int, _: int) -> None:
                if progress:
                    progress(before + done, total)

            for vector in self.vectors:
                made[vector] = derive(
                    at.vectors[vector], recipe, self._scratch, threads=self.threads, progress=report
                )
                before += sizes[vector]
        stored = sum(self._scratch.size(d.manifest.id) for d in made.values())
        worst = Error(
            max(d.error.max_abs for d in made.values()), max(d.error.relative_l2 for d in made.values())
        )
        return Candidate(recipe, made, stored, worst)

    def effect(self, rows: Rows, *, progress: Progress | None = None) -> Interval:
        """The effect of the behaviour as it is, alone on its base."""
        before, alone = self._known(rows, progress)
        return effect(alone, before)

    def try_out(self, candidate: Candidate, rows: Rows, *, progress: Progress | None = None) -> Trial:
        """The effect of the behaviour in another encoding, and how much of its effect that is."""
        before, alone = self._known(rows, progress)
        persona = self._alone(_with(self.behaviour, candidate))
        after = self._measure(persona, rows, progress)
        return Trial(candidate, effect(after, before), kept(after, alone, before))

    def adopt(
        self, candidate: Candidate, command: str, message: str, *, measured: Mapping[str, Any] | None = None
    ) -> str:
        """Commit the behaviour with the candidate's vectors; returns the commit.

        Raises UsageError if the behaviour has changed since, or is kept like that already.
        """

        def edit(persona: Persona) -> Persona:
            now = persona.behaviour(self.name)
            if now.terms != self.behaviour.terms:
                raise UsageError(
                    f"{self.name!r} has changed while it was being packed", hint="run the command again"
                )
            return persona.with_behaviour(self.name, _with(now, candidate))

        with self.registry.writing():
            for derived in candidate.derived.values():
                self._move(derived.manifest.id)
            return self.registry.change(
                command, message, edit, vectors=self._provenance(candidate, dict(measured or {}))
            )

    def _provenance(
        self, candidate: Candidate, measured: Mapping[str, Any]
    ) -> dict[str, tuple[VectorManifest, dict[str, Any]]]:
        found = {}
        for source, derived in candidate.derived.items():
            facts: dict[str, Any] = {
                "kind": "derived",
                "derived_from": source,
                "encoding": candidate.recipe.text,
                "error": derived.error.to_json(),
            }
            if measured:
                facts["measured"] = dict(measured)
            try:
                origin = self.registry.provenance(self.commit_id, source)
            except NotFoundError:
                origin = {}
            facts["original"] = origin.get("original", origin)
            found[derived.manifest.id] = (derived.manifest, facts)
        return found

    def _move(self, vector: str) -> None:
        with self._scratch.open_path(vector).open("rb") as pack, self.registry.packs.writer() as out:
            shutil.copyfileobj(pack, out.file)
            out.commit(vector)

    def _known(self, rows: Rows, progress: Progress | None) -> tuple[Margins, Margins]:
        if rows.id not in self._margins:
            plain = replace(self._alone(self.behaviour), behaviours={})
            before = self._measure(plain, rows, progress)
            self._margins[rows.id] = before, self._measure(self._alone(self.behaviour), rows, progress)
        return self._margins[rows.id]

    def _measure(self, persona: Persona, rows: Rows, progress: Progress | None) -> Margins:
        return measure(
            self.registry,
            self.commit_id,
            persona,
            rows,
            threads=self.threads,
            progress=progress,
            packs=self._scratch,
        )

    def _alone(self, behaviour: Behaviour) -> Persona:
        whole = Behaviour(1.0, behaviour.terms, behaviour.modules)
        return Persona(
            self.persona.base, {self.name: whole}, output=self.persona.output, engine=self.persona.engine
        )


def _with(behaviour: Behaviour, candidate: Candidate) -> Behaviour:
    terms = (Term(term.coefficient, candidate.derived[term.vector].manifest.id) for term in behaviour.terms)
    return replace(behaviour, terms=tuple(terms))
