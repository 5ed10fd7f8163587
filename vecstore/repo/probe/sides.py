"""The two builds that a probe compares, and the rows on which it does.

    A..B         each of them `base`, REV, REV:NAME or NAME (the behaviour alone, at weight 1)
    B            A is the base

Probes run the weights in fp32, steering left out: rounding to bf16 would add noise to every part of the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pv.registry.errors import BaseMismatch, DataError, NotFoundError, UsageError
from pv.registry.persona import Persona
from pv.vecstore.data.rows import Rows
from pv.vecstore.evaluate.margins import need_pairs
from pv.vecstore.merge.build import build_id
from pv.vecstore.repo.names import behaviour_named
from pv.vecstore.repo.rows import kept_rows
from pv.vecstore.repo.training_rows import compared

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["Side", "Sides", "probed_rows", "seen_before", "sides"]

BASE = "base"


@dataclass(frozen=True, slots=True)
class Side:
    """One build: `name` as it was asked for, or `base`."""

    name: str
    commit: str
    persona: Persona

    @property
    def build(self) -> str:
        return build_id(self.persona)

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, "commit": self.commit, "build": self.build}


@dataclass(frozen=True, slots=True)
class Sides:
    """`behaviour` is the one in which they differ, if it is one, and b has it."""

    a: Side
    b: Side
    behaviour: str | None

    def __str__(self) -> str:
        return f"{self.a.name}..{self.b.name}"


def sides(repo: Reading, what: str) -> Sides:
    """Raises UnknownRevision, UnknownBehaviour; BaseMismatch, and UsageError for two sides that are one build."""
    first, dots, second = what.partition("..")
    if dots and second.startswith("."):
        raise UsageError(f"{what!r} names no two builds", hint="write A..B, with two dots")
    b = _side(repo, (second if dots else first) or "HEAD")
    a = _side(repo, first or "HEAD", beside=b) if dots else _base(b)
    if a.persona.base != b.persona.base:
        raise BaseMismatch(
            f"{a.name} is of base {a.persona.base[:12]}, and {b.name} of base {b.persona.base[:12]}",
            hint="a probe compares two builds of one base",
        )
    if a.build == b.build:
        raise UsageError(f"{a.name} and {b.name} are the same build: there is nothing to probe", hint=_HINT)
    return Sides(a, b, _one_behaviour(a.persona, b.persona))


_HINT = "name two that differ, as in HEAD~1..HEAD, or one behaviour: it is compared with the base"


def probed_rows(repo: Reading, asked: Sides, rows: Rows | None, *, fewest: int) -> Rows:
    """The rows that were given, or those that were held out when the one behaviour was trained.

    Raises NotFoundError if there are none, DataError for rows without rejected answers, or fewer than `fewest`.
    """
    if rows is None:
        if asked.behaviour is None:
            raise NotFoundError(
                f"no rows go with {asked}: it is not one behaviour of {asked.b.name} in which they differ",
                hint="name held-out rows: --data ROWS",
            )
        try:
            kept = kept_rows(repo.at(asked.b.commit), asked.behaviour, held_out=True)
        except NotFoundError as error:
            raise NotFoundError(str(error), hint="name held-out rows: --data ROWS") from error
        rows = kept.named
    need_pairs(rows)
    if len(rows) < fewest:
        raise DataError(
            f"{rows.source}: {len(rows)} row{'' if len(rows) == 1 else 's'} are too few for this probe",
            hint=f"at least {fewest}; 24 or more are a good start",
        )
    return rows


def seen_before(repo: Reading, asked: Sides, rows: Rows) -> tuple[str, ...]:
    """What is to be said of rows that B was trained on, as far as the registry keeps its training rows."""
    found = compared(repo.registry, asked.b.commit, asked.b.persona.behaviours, rows)
    notes = []
    if found.rows:
        notes.append(
            f"{found.rows} of {len(rows)} rows are rows that {asked.b.name} was trained on: what is measured there is "
            "not held out"
        )
    if found.prompts:
        notes.append(
            f"{found.prompts} of {len(rows)} rows have the prompt of a row that {asked.b.name} was trained on"
        )
    return tuple(notes)


def _side(repo: Reading, word: str, beside: Side | None = None) -> Side:
    if word == BASE:
        return _base(beside or _side(repo, "HEAD"))
    named = behaviour_named(repo, word)
    revision = repo.at(word if named is None else named[0])
    persona = revision.persona
    if named is not None:
        revision.behaviour(named[1])
        persona = persona.alone(named[1])
    return Side(word, revision.commit, _plain(persona))


def _base(of: Side) -> Side:
    return Side(BASE, of.commit, of.persona.without_behaviours())


def _plain(persona: Persona) -> Persona:
    return persona.unsteered.with_output(dtype="fp32")


def _one_behaviour(a: Persona, b: Persona) -> str | None:
    names = sorted({*a.behaviours, *b.behaviours})
    differ = [name for name in names if a.behaviours.get(name) != b.behaviours.get(name)]
    return differ[0] if len(differ) == 1 and differ[0] in b.behaviours else None
