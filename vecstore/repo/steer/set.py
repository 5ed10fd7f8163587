"""set: another coefficient, other sites, positions or condition of a steering term, or another rule of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import TYPE_CHECKING, Any, Literal

from pv.registry import ids
from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.steering import Condition, SteeringTerm
from pv.vecstore.repo.edit import Committed, commit_edit
from pv.vecstore.repo.steer.one_term import at_layer

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["set_term"]

EXAMPLE = "as in 'model.layers.14>0.2', or 'VECTOR@model.layers.14>0.2' of another vector"


def set_term(
    repo: Repo,
    name: str | None,
    coefficient: float | None = None,
    *,
    sites: Sequence[str] | Literal["all"] | None = None,
    layers: Sequence[int] = (),
    positions: str | None = None,
    when: Condition | str | EllipsisType | None = ...,
    rule: str | None = None,
    message: str | None = None,
) -> Committed:
    """Change a term and the rule; None, or of `when` `...`, leaves as it is. Raises NotFoundError, UsageError."""
    values: dict[str, Any] = {} if coefficient is None else {"coefficient": float(coefficient)}
    if sites is not None:
        values["sites"] = None if sites == "all" else _sites(sites)
    if positions is not None:
        values["positions"] = positions
    of_term = bool(values or layers) or when is not ...
    if not of_term and rule is None:
        raise UsageError("nothing to set", hint="give a coefficient, sites, positions, a condition or a rule")
    if of_term and name is None:
        raise UsageError("of which term?", hint="`pv steer list` shows them")

    def edit(persona: Persona) -> Persona:
        if name is not None:
            term = persona.steering_term(name)
            if layers:
                known = repo.registry.vector(None, term.vector).tensors
                there = [site for layer in layers for site in at_layer(known, layer, name)]
                values["sites"] = (*(values.get("sites") or ()), *there)
            condition: dict[str, Any] = (
                {} if isinstance(when, EllipsisType) else {"when": _condition(when, term, persona)}
            )
            if condition.get("when") is not None and positions is None:
                condition["positions"] = "reply"  # the prompt has to be there before it can be asked of
            persona = persona.with_steering(name, term.changed(**values, **condition))
        return persona if rule is None else persona.with_steering_rule(rule)

    what = name or "the rule"
    command = f"steer set {name or f'--rule {rule}'}"
    already = f"{what} is like that already"
    return commit_edit(repo, command, message or f"Set steering {name or 'rule'}", edit, already=already)


def _sites(sites: Sequence[str]) -> tuple[str, ...]:
    if isinstance(sites, str) or not sites:
        raise UsageError("sites are a list of at least one name, or 'all'", hint="`pv steer list` shows them")
    return tuple(sites)


def _condition(when: Condition | str | None, term: SteeringTerm, persona: Persona) -> Condition | None:
    """What is written `[VECTOR@]SITE>NUMBER`; without a vector, the term's own."""
    if when is None or isinstance(when, Condition):
        return when
    place, _, number = when.rpartition(">")
    vector, at, site = place.rpartition("@")
    try:
        above = float(number)
    except ValueError:
        raise UsageError(f"{when[:80]!r} is no condition", hint=EXAMPLE) from None
    if not site:
        raise UsageError(f"{when[:80]!r} names no site", hint=EXAMPLE)
    return Condition(_vector(vector, persona) if at else term.vector, site, above)


def _vector(text: str, persona: Persona) -> str:
    """A vector of the persona's steering terms, by the beginning of its id; any other by the whole of it."""
    found = [vector for vector in persona.steering_vectors if text and vector.startswith(text.lower())]
    if len(found) == 1:
        return found[0]
    if ids.is_id(text):
        return text
    raise UsageError(
        f"{text[:80]!r} names {'several' if found else 'no'} steering vectors here",
        hint="`pv steer list --json` has their ids",
    )
