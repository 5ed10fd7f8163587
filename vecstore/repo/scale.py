"""scale: a behaviour's weight, and its factors by module and by depth."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from pv.registry.depth import Depth
from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.words import number
from pv.vecstore.merge.module_factors import matches
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["scale"]

NEAREST = 3  # patterns offered for one that matches nothing


def scale(
    repo: Repo,
    name: str,
    weight: float,
    *,
    modules: Mapping[str, float] | None = None,
    depth: Depth | Mapping[float, float] | str | None = None,
    message: str | None = None,
) -> Committed:
    """Set a behaviour's weight, and its factors by pattern of tensor names and by depth, if any are given.

    Given ones replace all that it had; {} removes them. Raises UsageError.
    """
    weight = float(weight) + 0.0
    profile = None if depth is None else Depth.of(depth)
    given = _factors(repo, modules, profile)

    def edit(persona: Persona) -> Persona:
        known = persona.behaviour(name)
        factors = known.modules if given is None else given or None
        return persona.with_behaviour(name, replace(known, weight=weight, modules=factors)).checked()

    by = [*(["with module factors"] if modules else []), *([f"by depth {profile}"] if profile else [])]
    said = message or f"Scale {name} to {number(weight)}{', ' if by else ''}{' and '.join(by)}"
    already = f"{name} has weight {number(weight)} already"
    return commit_edit(repo, f"scale {name} {number(weight)}", said, edit, already=already)


def _factors(repo: Repo, modules: Mapping[str, float] | None, depth: Depth | None) -> dict[str, float] | None:
    """All patterns, with their factors; where both name one pattern, the product, as wherever two match."""
    if modules is None and depth is None:
        return None
    factors = {pattern: float(factor) + 0.0 for pattern, factor in (modules or {}).items()}
    tensors = repo.at().base.tensors
    for pattern in factors:
        if not any(matches(pattern, tensor) for tensor in tensors):
            raise _matches_nothing(pattern, tensors)
    for pattern, factor in depth.factors(tensors).items() if depth else ():
        factors[pattern] = factor * factors.get(pattern, 1.0)
    return factors


def _matches_nothing(pattern: str, tensors: Collection[str]) -> UsageError:
    """A factor that scales nothing is a slip of the pen: what it may have been meant to be."""
    kinds = sorted({re.sub(r"(^|\.)[0-9]+(?=\.)", r"\1*", tensor) for tensor in tensors})
    near = difflib.get_close_matches(pattern[:256], kinds, NEAREST, cutoff=0)
    return UsageError(
        f"no tensor of the base matches {pattern[:200]!r}",
        hint=f"the nearest patterns are {', '.join(map(repr, near))}; * matches anything",
    )
