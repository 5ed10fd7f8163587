"""applied: a persona's steering terms, set on a model that has its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pv.registry.errors import UsageError
from pv.registry.packs.store import PackStore
from pv.registry.persona import Persona
from pv.registry.steering import SteeringTerm
from pv.vecstore.activations.steering import Condition, Term, steering
from pv.vecstore.tensors.array import F32
from pv.vecstore.vectors.steering import open_steering

if TYPE_CHECKING:
    from torch import nn

__all__ = ["applied", "at_site", "random_like", "terms_of"]


@contextmanager
def applied(
    model: nn.Module, persona: Persona, packs: PackStore, more: PackStore | None = None, *, random: int = 0
) -> Iterator[None]:
    """Inside, the model is steered as the persona says. With `random`, by noise of the same norms: that draw of it.

    `more` has vectors that `packs` lacks.

    Raises NotFoundError, CorruptPack, UsageError for a site that the model does not have.
    """
    terms = terms_of(persona, packs, more)
    if random:
        terms = [replace(term, directions=random_like(term.directions, random)) for term in terms]
    with steering(model, terms, persona.steering.rule):  # type: ignore[arg-type]  # which was checked as it was read
        yield


def terms_of(persona: Persona, packs: PackStore, more: PackStore | None = None) -> list[Term]:
    """What is added, in the order of the terms' names."""

    def directions(vector: str) -> dict[str, F32]:
        return open_steering(vector, persona.base, packs if more is None or packs.has(vector) else more)

    return [_term(term, directions, name) for name, term in persona.steering.active.items()]


def random_like(directions: Mapping[str, F32], draw: int) -> dict[str, F32]:
    """Gaussian noise of the norm of each direction; the same directions and number give the same noise."""
    found = {}
    for site, one in directions.items():
        key = f"pv:random direction:1\n{draw}\n{site}\n".encode() + np.ascontiguousarray(one).tobytes()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:8], "big")
        noise = np.random.Generator(np.random.Philox(key=seed)).standard_normal(one.shape).astype(np.float32)
        found[site] = noise * np.float32(np.linalg.norm(one) / np.linalg.norm(noise))
    return found


def _term(term: SteeringTerm, opened: Callable[[str], dict[str, F32]], name: str) -> Term:
    every = opened(term.vector)
    directions = every
    if term.sites is not None:
        directions = {site: at_site(every, site, name) for site in term.sites}
    condition = None
    if term.when is not None:
        known = every if term.when.vector == term.vector else opened(term.when.vector)
        condition = Condition(term.when.site, at_site(known, term.when.site, name), term.when.above)
    return Term(directions, term.coefficient, term.positions, condition)  # type: ignore[arg-type]


def at_site(directions: Mapping[str, F32], site: str, name: str) -> F32:
    """The direction there of the vector of a term. Raises UsageError."""
    if site not in directions:
        some = ", ".join(sorted(directions)[:3])
        more = f" and {len(directions) - 3} more" if len(directions) > 3 else ""
        raise UsageError(
            f"the vector of steering term {name} has no direction at {site[:80]!r}",
            hint=f"it has {some}{more}",
        )
    return directions[site]
