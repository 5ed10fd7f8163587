"""add: bring a steering term from another revision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.history.revisions import lasting
from pv.registry.persona import Persona, check_name
from pv.registry.steering import Steering
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["add"]


def add(
    repo: Repo, name: str, revision: str, *, new: str | None = None, message: str | None = None
) -> Committed:
    """The term as it is there, applied, under its name or a `new` one; the first of a persona brings its rule.

    Raises NotFoundError, UsageError for another base or a name that is taken.
    """
    new = check_name(new or name, "steering term")
    commit = repo.registry.resolve(revision)
    source = lasting(revision, commit)
    theirs = repo.registry.persona(commit)
    brought = replace(theirs.steering_term(name, of=revision), retired_by=None)

    def edit(persona: Persona) -> Persona:
        if persona.base != theirs.base:
            raise UsageError(
                f"{revision} is a persona of another base ({theirs.base[:12]})",
                hint="a steering vector means nothing in another model",
            )
        if new in persona.steering.terms:
            raise UsageError(
                f"there is a steering term {new!r} here already",
                hint=f"bring it under another name: pv steer add {new[:60]}2={source}:{name}; "
                f"or in its place: pv steer drop {new}, then pv steer add {new}={commit[:12]}:{name}",
            )
        if not persona.steering.terms:
            persona = replace(persona, steering=Steering(theirs.steering.rule))
        return persona.with_steering(new, brought)

    said = message or f"Add steering {new} from {source}:{name}"
    return commit_edit(repo, f"steer add {new}={revision}:{name}", said, edit, also_from=[commit])
