"""unretire: a term that a behaviour retired is applied again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from pv.registry.persona import Persona
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["unretire"]


def unretire(repo: Repo, name: str, *, message: str | None = None) -> Committed:
    """The term as it is, with its evidence, and no longer retired. Raises NotFoundError."""

    def edit(persona: Persona) -> Persona:
        return persona.with_steering(name, replace(persona.steering_term(name), retired_by=None))

    already = f"{name} is not retired"
    return commit_edit(repo, f"steer unretire {name}", message or f"Unretire {name}", edit, already=already)
