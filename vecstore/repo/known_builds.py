"""Which revisions a table of tensors is known to be the build of: by what was recorded when they were built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pv.registry.history.log import LogEntry
from pv.registry.persona import Output, Persona, as_written
from pv.registry.registry import Registry
from pv.vecstore.merge.build import build_id
from pv.vecstore.repo.commits import named_history

__all__ = ["KnownBuild", "build_ids", "known_builds", "same_recipe"]


@dataclass(frozen=True, slots=True)
class KnownBuild:
    """A commit, a name for it (HEAD, a branch, a tag, HEAD~3, or its id), and its persona as it was written.

    `output` is how the commit itself says that builds are written.
    """

    commit: str
    revision: str
    persona: Persona
    output: Output

    @property
    def options(self) -> dict[str, str]:
        """The options of `pv build` that it was written with."""
        ours, theirs = self.persona.output, self.output
        chosen = {"dtype": (ours.dtype, theirs.dtype), "rounding": (ours.rounding, theirs.rounding)}
        return {option: made for option, (made, said) in chosen.items() if made != said}

    def to_json(self) -> dict[str, Any]:
        return {"commit": self.commit, "revision": self.revision, "options": self.options}


def known_builds(
    registry: Registry,
    weights: str,
    beside: Persona | None = None,
    history: Sequence[LogEntry] | None = None,
    *,
    unbaked: bool = False,
) -> tuple[KnownBuild, ...]:
    """The commits whose build has these weights, as far as it was recorded: HEAD first, then those with a name.

    `beside` is the persona that lies with the weights: of several ways of writing a build, its is preferred.
    With `unbaked`, or if `beside` steers, a persona's weights with no steering in them are its build too.
    """
    unbaked = unbaked or (beside is not None and bool(beside.steering.active))
    recorded = set(registry.builds_with(weights))
    base = registry.head().commit and registry.base().id
    if not recorded and weights != base:
        return ()
    found: dict[str, Persona | None] = {}
    known = []
    for commit, name, persona in named_history(registry, history):
        if persona.id not in found:
            if unbaked and beside is not None and persona.recipe.steering != beside.recipe.steering:
                found[persona.id] = (
                    None  # what it steers is said beside the weights, and it is something else
                )
                continue
            first = [persona, beside] if beside is not None and same_recipe(persona, beside) else []
            found[persona.id] = next(
                (
                    p
                    for p in (*first, *as_written(persona))
                    if not recorded.isdisjoint(build_ids(p) if unbaked else [build_id(p)])
                    or _is_base(p.unsteered if unbaked else p, weights)
                ),
                None,
            )
        if (written := found[persona.id]) is not None:
            known.append(KnownBuild(commit, name, written, persona.output))
    return tuple(known)


def build_ids(persona: Persona) -> tuple[str, ...]:
    """Of its build, and of the one that has nothing of its steering in it."""
    return tuple(dict.fromkeys((build_id(persona), build_id(persona.unsteered))))


def same_recipe(a: Persona, b: Persona) -> bool:
    """Whether two personas differ in nothing but how they are written, and in what changes no build."""
    return replace(a.recipe, output=b.output) == b.recipe


def _is_base(persona: Persona, weights: str) -> bool:
    return weights == persona.base and persona.is_plain and persona.output.dtype == "base"
