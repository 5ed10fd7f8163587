"""Verbs that change the recipe and nothing else: scale, negate, add, drop, combine, output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pv.registry.combine import Combine
from pv.registry.errors import UsageError
from pv.registry.persona import Persona, check_name
from pv.vecstore.merge.module_factors import matches

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["Committed", "add", "combine", "drop", "negate", "output", "scale"]


@dataclass(frozen=True, slots=True)
class Committed:
    """Where the branch is now, what was done in words, and the persona. `more` goes into the JSON."""

    commit: str
    said: str
    persona: Persona
    more: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        return {
            "commit": self.commit,
            **self.more,
            "persona_id": self.persona.id,
            "persona": self.persona.to_json(),
        }


def scale(
    repo: Repo,
    name: str,
    weight: float,
    *,
    modules: Mapping[str, float] | None = None,
    message: str | None = None,
) -> Committed:
    """Set a behaviour's weight, and its factors by pattern of tensor names, if any are given. Raises UsageError."""
    weight = float(weight) + 0.0
    _check_patterns(repo, modules or ())

    def edit(persona: Persona) -> Persona:
        known = persona.behaviour(name)
        factors = known.modules if modules is None else dict(modules) or None
        return persona.with_behaviour(name, replace(known, weight=weight, modules=factors))

    said = message or f"Scale {name} to {weight:g}{', with module factors' if modules else ''}"
    return _commit(repo, f"scale {name} {weight:g}", said, edit)


def negate(repo: Repo, name: str, *, message: str | None = None) -> Committed:
    """Flip the sign of a behaviour's weight."""

    def edit(persona: Persona) -> Persona:
        behaviour = persona.behaviour(name)
        return persona.with_behaviour(name, replace(behaviour, weight=0.0 - behaviour.weight))

    return _commit(repo, f"negate {name}", message or f"Negate {name}", edit)


def drop(repo: Repo, name: str, *, message: str | None = None) -> Committed:
    """Remove a behaviour from the persona; its vector stays in the history."""
    return _commit(repo, f"drop {name}", message or f"Drop {name}", lambda persona: persona.without(name))


def add(
    repo: Repo,
    behaviour: str,
    revision: str,
    *,
    name: str | None = None,
    weight: float | None = None,
    message: str | None = None,
) -> Committed:
    """Bring one behaviour from another revision, under its own name or another."""
    name = check_name(name or behaviour)
    commit = repo.registry.resolve(revision)
    theirs = repo.registry.persona(commit)
    brought = theirs.behaviour(behaviour)
    if weight is not None:
        brought = replace(brought, weight=weight)

    def edit(persona: Persona) -> Persona:
        if persona.base != theirs.base:
            raise UsageError(f"{revision} is a persona of another base ({theirs.base[:12]})")
        if name in persona.behaviours:
            raise UsageError(
                f"there is a behaviour {name!r} here already",
                hint=f"give it another name: pv add NEW={revision}:{behaviour}",
            )
        return persona.with_behaviour(name, brought)

    said = message or f"Add {name} from {revision}:{behaviour}"
    return _commit(repo, f"add {name}={revision}:{behaviour}", said, edit, also_from=[commit])


def combine(repo: Repo, rule: Combine, *, message: str | None = None) -> Committed:
    """Set the rule by which behaviours are combined."""
    said = message or f"Combine with {rule.method}"
    return _commit(repo, f"combine {rule.method}", said, lambda persona: persona.with_combine(rule))


def output(
    repo: Repo,
    *,
    dtype: str | None = None,
    rounding: str | None = None,
    seed: int | None = None,
    message: str | None = None,
) -> Committed:
    """Set how builds are written. What is None stays as it is."""

    def edit(persona: Persona) -> Persona:
        changed = persona.with_output(dtype=dtype, rounding=rounding)
        if seed is not None:
            changed = replace(changed, output=replace(changed.output, seed=seed))
        return changed

    return _commit(repo, "output", message or "Set how builds are written", edit)


def _check_patterns(repo: Repo, patterns: Iterable[str]) -> None:
    """A factor that scales nothing is a slip of the pen."""
    tensors = repo.at().base.tensors
    for pattern in patterns:
        if not any(matches(pattern, name) for name in tensors):
            raise UsageError(
                f"no tensor of the base matches {pattern[:200]!r}",
                hint=f"its names are like {min(tensors, default='')!r}; * stands for anything",
            )


def _commit(
    repo: Repo,
    command: str,
    message: str,
    edit: Callable[[Persona], Persona],
    *,
    also_from: Sequence[str] = (),
) -> Committed:
    """Apply `edit` to the persona of the current branch and commit it."""
    commit = repo.registry.change(repo.command(command), message, edit, also_from=also_from)
    return Committed(commit, message, repo.registry.persona(commit))
