"""drop: remove steering terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.vecstore.repo.edit import Committed, commit_edit

if TYPE_CHECKING:
    from pv.vecstore.repo.repo import Repo

__all__ = ["drop"]


def drop(repo: Repo, names: Sequence[str], *, message: str | None = None) -> Committed:
    """Remove terms from the persona; their vectors stay in the history. Raises NotFoundError, UsageError."""
    if not names or len(set(names)) < len(names):
        raise UsageError("name each steering term once", hint="`pv steer list` shows them")

    def edit(persona: Persona) -> Persona:
        for name in names:
            persona.steering_term(
                name
            )  # all are here, or nothing is dropped, and the error lists what there is
        for name in names:
            persona = persona.without_steering(name)
        return persona

    said = message or f"Drop steering {', '.join(names)}"
    return commit_edit(repo, f"steer drop {' '.join(names)}", said, edit)
