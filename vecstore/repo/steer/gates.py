"""Gates: what a steering term must have shown before it goes on, each condition with its number.

    extracted -> tested -> verified -> retired

A gate that is passed leaves its evidence in the persona, of the term as it is; one that is not changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from pv.registry.errors import UsageError
from pv.registry.persona import Behaviour, Persona
from pv.registry.provenance_ways import origins
from pv.registry.registry import Registry
from pv.registry.steering import Steering, SteeringTerm
from pv.registry.steering_origin import Extracted
from pv.vecstore.data.kept_rows import load_rows
from pv.vecstore.data.overlap import Overlap, overlap
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.damage import Damage
from pv.vecstore.evaluate.statistics import Interval, share
from pv.vecstore.repo.long_work import LongWork, long_work
from pv.vecstore.repo.score import Score

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = [
    "Condition",
    "Gate",
    "Passage",
    "Trial",
    "against",
    "damage_json",
    "extracted_from",
    "not_held_out",
    "steered_alone",
    "trial",
    "unseen",
]

Gate = Literal["tested", "verified", "retired"]
VERBS: Mapping[Gate, str] = {"tested": "test", "verified": "verify", "retired": "retire"}


@dataclass(frozen=True, slots=True)
class Condition:
    """One thing that must hold, in words with its number."""

    said: str
    holds: bool

    def to_json(self) -> dict[str, Any]:
        return {"said": self.said, "holds": self.holds}


@dataclass(frozen=True, slots=True)
class Passage:
    """A gate that was tried: the commit is None where it stopped the term. `evidence` is what was measured."""

    gate: Gate
    name: str
    conditions: tuple[Condition, ...]
    evidence: Mapping[str, Any]
    score: Score
    commit: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return all(one.holds for one in self.conditions)

    def to_json(self) -> dict[str, Any]:
        return {
            "gate": self.gate,
            "name": self.name,
            "passed": self.passed,
            "commit": self.commit,
            "conditions": [one.to_json() for one in self.conditions],
            "evidence": dict(self.evidence),
            "score": self.score.to_json(),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True)
class Trial:
    """A term while it is measured: as it was when that began, on the branch that was current then."""

    repo: Repo
    work: LongWork
    name: str
    term: SteeringTerm

    @property
    def registry(self) -> Registry:
        return self.work.registry

    @property
    def commit(self) -> str:
        return self.work.commit

    @property
    def persona(self) -> Persona:
        return self.work.persona

    @property
    def alone(self) -> Persona:
        return steered_alone(self.persona, self.name)

    def needs(self, gate: Gate) -> None:
        """Raises UsageError if an earlier gate has not been passed by the term as it is."""
        if gate not in self.term.evidence:
            hint = f"`pv steer {VERBS[gate]} {self.name} ROWS` comes first; `pv steer status` shows all"
            raise UsageError(f"{self.name} is not {gate} as it is now", hint=hint)

    def land(
        self, passage: Passage, by: tuple[str, Behaviour] | None = None, message: str | None = None
    ) -> Passage:
        """Keep the evidence, if the gate was passed; with `by`, the term is retired by that behaviour.

        Raises UsageError if the term, the rule or the behaviour is not what was measured any more.
        """
        if not passage.passed:
            return passage
        key = "trained" if passage.gate == "retired" else passage.gate

        def edit(persona: Persona) -> Persona:
            now = persona.steering_term(self.name)
            same = replace(now, evidence={}) == replace(self.term, evidence={})
            if not same or persona.steering.rule != self.persona.steering.rule:
                raise self._changed(self.name)
            if by is not None and persona.behaviour(by[0]) != by[1]:
                raise self._changed(by[0])
            kept = {**now.evidence, key: dict(passage.evidence)}
            retired_by = now.retired_by if by is None else by[0]
            return persona.with_steering(self.name, replace(now, evidence=kept, retired_by=retired_by))

        tip, persona = self.work.newest()
        if edit(persona) == persona:
            return replace(passage, commit=tip, notes=(*passage.notes, "the same evidence was there already"))
        command = self.repo.command(f"steer {VERBS[passage.gate]} {self.name}")
        said = message or f"{self.name} is {passage.gate}"
        return replace(passage, commit=self.work.land(command, said, edit, {}))

    def _changed(self, name: str) -> UsageError:
        return UsageError(
            f"{name} was changed while it was measured: what was measured is of what it was",
            hint="run the command again",
        )


@contextmanager
def trial(repo: Repo, name: str) -> Iterator[Trial]:
    """A term of the current branch to be measured. Raises NotFoundError, UsageError for one that is retired."""
    with long_work(repo) as work:
        term = work.persona.steering_term(name)
        if term.retired_by is not None:
            raise UsageError(
                f"{name} is retired: {term.retired_by} does it in the weights",
                hint=f"`pv steer unretire {name}` applies it again",
            )
        yield Trial(repo, work, name, term)


def steered_alone(persona: Persona, name: str) -> Persona:
    """The base with one steering term and nothing else, as the persona has it; a retired one as if it were not."""
    term = replace(persona.steering_term(name), evidence={}, retired_by=None)
    return replace(persona.without_behaviours(), steering=Steering.of(persona.steering.rule, {name: term}))


def against(values: NDArray[np.float64]) -> Interval:
    """The share of rows that moved the other way."""
    return share(int((values < 0).sum()), len(values))


def damage_json(found: Damage | None) -> dict[str, Any] | None:
    """What evidence keeps of it."""
    if found is None:
        return None
    return {
        name: None if one is None else one.ends()
        for name, one in (("answers", found.answers), ("text", found.text))
    }


def extracted_from(registry: Registry, commit: str, vector: str) -> list[tuple[Extracted, Rows]]:
    """How a vector was extracted, and from which rows, as far as the registry keeps them."""
    found = []
    for origin in origins(registry.provenance(commit, vector)):
        kept = isinstance(origin, Extracted) and origin.pairs.data_id in origin.packs
        if isinstance(origin, Extracted) and kept and registry.packs.has(origin.pairs.data_id):
            found.append((origin, load_rows(origin.pairs.data_id, registry.packs)))
    return found


def not_held_out(registry: Registry, commit: str, vector: str, rows: Rows) -> Overlap:
    """Which of the rows the vector was extracted from; `unknown` if what it was made from is not all at hand."""
    known = extracted_from(registry, commit, vector)
    found = overlap(rows, [one for _, one in known])
    whole = len(known) == len(list(origins(registry.provenance(commit, vector))))
    return found if whole else found.without_knowing({Path(rows.source).name})


def unseen(rows: Rows, known: Overlap) -> Condition:
    """That rows are held out, or that nobody knows."""
    if known.unknown and not known.rows:
        return Condition(
            "what it was made from is not kept: whether these rows are held out is not known", True
        )
    return Condition(f"{known.rows} of {len(rows)} rows are rows that it was extracted from", known.rows == 0)
