"""define: a behaviour that is a sum of others, `a - b + 0.5*c`: their terms, with coefficients that are exact.

A behaviour is weight times a sum of terms, so a sum of behaviours is one too, and nothing is computed with weights of
models. Numbers count as they are written, in decimals: 0.1*a + 0.2*a - 0.3*a is nothing at all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.history.revisions import lasting
from pv.registry.persona import Behaviour, Persona, Term, check_name
from pv.registry.words import number
from pv.vecstore.repo.edit import Committed, add, commit_edit, free_name
from pv.vecstore.repo.expression import Call, Operand, Sum, at_revisions, parse

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Expression", "define", "read"]

MAX_COEFFICIENT = 1e30


@dataclass(frozen=True, slots=True)
class Expression:
    """What was typed, read; `personas` are those of the revisions that it names, and `commits` theirs."""

    made: Sum | Call
    personas: Mapping[str | None, Persona]
    commits: tuple[str, ...]
    words: str

    def behaviour(self, operand: Operand, persona: Persona) -> Behaviour:
        """What an operand names, in `persona` or in another revision. Raises UnknownBehaviour, UsageError."""
        there = persona if operand.revision is None else self.personas[operand.revision]
        if there.base != persona.base:
            raise UsageError(
                f"{operand.revision} is a persona of another base ({there.base[:12]})",
                hint=f"`pv rows {operand.source} -o ROWS.jsonl` writes its rows, to train it on this base",
            )
        return there.behaviour(operand.name)

    def terms(self, one: Sum, persona: Persona) -> tuple[Term, ...]:
        """The sum as terms: weights multiplied in, those of one vector summed. Raises UsageError if nothing is left."""
        found: defaultdict[str, Fraction] = defaultdict(Fraction)
        for operand in one.operands:
            behaviour = self.behaviour(operand, persona)
            if not behaviour.weight:
                raise UsageError(
                    f"{operand.source} has weight 0: it would add nothing",
                    hint=f"`pv scale {operand.name} 1` gives it a weight",
                )
            for term in behaviour.terms:
                found[term.vector] += (
                    operand.coefficient * _decimal(behaviour.weight) * _decimal(term.coefficient)
                )
        terms = tuple(Term(_double(share), vector) for vector, share in found.items() if share)
        if not terms:
            raise UsageError(
                f"nothing is left of {one}: the terms cancel each other", hint="name two that differ"
            )
        return terms

    def modules(self, sums: Iterable[Sum], persona: Persona) -> Mapping[str, float] | None:
        """The module factors that all operands have. Raises UsageError where they differ."""
        operands = [operand for one in sums for operand in one.operands]
        factors = [dict(self.behaviour(operand, persona).modules or {}) for operand in operands]
        for operand, other in zip(operands, factors, strict=True):
            if other != factors[0]:
                one = operand if other else operands[0]
                name = "NAME" if one.revision else one.name
                weight = "WEIGHT" if one.revision else number(self.behaviour(one, persona).weight)
                raise UsageError(
                    f"{operands[0].source} and {operand.source} have different module factors: "
                    "a behaviour has one set for all its terms",
                    hint=f"`pv scale {name} {weight} --modules none` removes them, and the sum can have its own",
                )
        return factors[0] or None

    def notes(self, sums: Iterable[Sum], persona: Persona, name: str) -> tuple[str, ...]:
        """What to know of the new behaviour: the weights that are in it, and what is counted beside it."""
        operands = list(dict.fromkeys((o.source, o) for one in sums for o in one.operands))
        weights = [
            f"{source} counts with its weight {number(weight)}"
            for source, operand in operands
            if (weight := self.behaviour(operand, persona).weight) != 1
        ]
        here = sorted(
            {o.name for _, o in operands if o.revision is None and persona.behaviours[o.name].weight}
        )
        are = "is" if len(here) == 1 else "are"
        beside = [f"{', '.join(here)} {are} still in the persona beside {name}: `pv drop {' '.join(here)}` takes "
                  f"{'it' if len(here) == 1 else 'them'} out"] if here else []  # fmt: skip
        return (*dict.fromkeys(weights), *beside)


def read(repo: Repo, name: str, text: str) -> Expression:
    """Read an expression for a new behaviour `name`. Raises UsageError, UnknownBehaviour, UnknownRevision."""
    check_name(name)
    persona = repo.at().persona
    made = parse(text, persona.behaviours.keys())
    sums = made.sums if isinstance(made, Call) else (made,)
    revisions = dict.fromkeys(o.revision for one in sums for o in one.operands if o.revision is not None)
    commits = {revision: repo.registry.resolve(revision) for revision in revisions}
    personas: dict[str | None, Persona] = {r: repo.registry.persona(c) for r, c in commits.items()}
    written = {revision: lasting(revision, commit) for revision, commit in commits.items()}
    return Expression(made, personas, tuple(commits.values()), str(at_revisions(made, written)))


def define(
    repo: Repo, name: str, text: str, *, weight: float | None = None, message: str | None = None
) -> Committed:
    """Commit a behaviour that is the sum `text` of others, at weight 1 unless another is given."""
    revision, colon, other = text.strip().rpartition(":")
    if colon and (revision in repo.branches() or revision in repo.tags()):  # whatever signs its name has
        return add(repo, other, revision, name=name, weight=weight, message=message)
    found = read(repo, name, text)
    one = found.made
    if isinstance(one, Call):
        raise UsageError(
            f"{one.method}(...) makes a new vector of several: that is work of its own",
            hint=f"`pv add {name}='{one}'`, or repo.derive({name!r}, {str(one)!r})",
        )
    if (alone := one.alone) is not None:
        return add(repo, alone.name, alone.revision or "HEAD", name=name, weight=weight, message=message)
    notes: list[str] = []

    def edit(persona: Persona) -> Persona:
        check_free(persona, name, str(one))
        made = Behaviour(
            1.0 if weight is None else float(weight) + 0.0,
            found.terms(one, persona),
            found.modules([one], persona),
        )
        notes[:] = found.notes([one], persona, name)
        return persona.with_behaviour(name, made).checked()

    said = message or f"Add {name} = {found.words}"
    made = commit_edit(repo, f"add {name}={one}", said, edit, also_from=found.commits)
    return replace(made, notes=tuple(notes))


def check_free(persona: Persona, name: str, words: str) -> None:
    """Raises UsageError for a name that is taken."""
    if name in persona.behaviours:
        free = free_name(persona, name)
        raise UsageError(
            f"there is a behaviour {name!r} here already",
            hint=f"take another name: pv add {free}='{words}'; then pv drop {name}, pv rename {free} {name}",
        )


def _decimal(value: float) -> Fraction:
    """A number as it is written: 0.1 is a tenth."""
    return Fraction(repr(float(value)))


def _double(value: Fraction) -> float:
    if abs(value) > MAX_COEFFICIENT:
        raise UsageError(
            f"a coefficient of {float(value):g} is too large", hint="use smaller factors or weights"
        )
    return float(value)
