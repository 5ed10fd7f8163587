"""rename: give a steering term another name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.persona import Persona, check_name
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["rename"]


def rename(repo: Repo, old: str, new: str, *, message: str | None = None) -> Committed:
    """The same term, and what is known of it, under another name. Raises NotFoundError, UsageError if it is taken."""
    check_name(new, "steering term")

    def edit(persona: Persona) -> Persona:
        term = persona.steering_term(old)
        if new == old:
            return persona
        if new in persona.steering.terms:
            raise UsageError(
                f"there is a steering term {new!r} here already",
                hint=f"choose another name, or remove it first: pv steer drop {new}",
            )
        return persona.with_steering(new, term).without_steering(old)

    already = f"{old} has that name already" if new == old else None
    said = message or f"Rename steering {old} to {new}"
    return commit_edit(repo, f"steer rename {old} {new}", said, edit, already=already)
