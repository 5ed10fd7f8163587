"""A steering term by its name, with its directions read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.steering import Steering, SteeringTerm
from pv.vecstore.activations.sites import Site
from pv.vecstore.repo.steer.gates import steered_alone
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import open_steering

if TYPE_CHECKING:
    from pv.vecstore.repo.reading import Reading

__all__ = ["TermAt", "term_at"]


@dataclass(frozen=True, slots=True, eq=False)
class TermAt:
    """`name` is as it was typed; `alone`: the base with this term, applied. `directions` are those at all sites of
    its vector, of coefficient 1."""

    name: str
    term: SteeringTerm
    alone: Persona
    directions: Mapping[str, F32]

    @property
    def base(self) -> str:
        return self.alone.base

    @property
    def turned(self) -> Persona:
        """`alone` with the sign of its coefficient turned."""
        rule, terms = self.alone.steering.rule, self.alone.steering.terms
        turned = {name: replace(term, coefficient=-term.coefficient) for name, term in terms.items()}
        return replace(self.alone, steering=Steering.of(rule, turned))

    @property
    def applied(self) -> tuple[str, ...]:
        """The sites where the term steers."""
        sites = self.directions if self.term.sites is None else self.term.sites
        return tuple(str(Site.parse(site)) for site in sites)


def term_at(repo: Reading, said: str) -> TermAt:
    """TERM (of HEAD) or REV:TERM. Raises UnknownRevision, NotFoundError, UsageError, CorruptPack."""
    revision, _, name = said.rpartition(":")
    at = repo.at(revision or "HEAD")
    if not name:
        raise UsageError(f"{said[:80]!r} names no steering term", hint="`pv steer list` shows them")
    term = at.persona.steering_term(name, of=at.name)
    opened = open_steering(term.vector, at.persona.base, repo.registry.packs)
    directions = {
        str(Site.parse(site)): one for site, one in opened.items()
    }  # by the one spelling of each site
    return TermAt(said, term, steered_alone(at.persona, name), directions)
