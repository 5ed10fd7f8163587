"""Would a build be refused, for the merge method and the weights? Said when that becomes so, not only at the build."""

from __future__ import annotations

from pv.registry.errors import UsageError
from pv.registry.persona import Persona

__all__ = ["refused"]


def refused(before: Persona, now: Persona) -> tuple[str, ...]:
    """What to tell about a change after which the persona cannot be built, where it could be before."""
    why = _why(now)
    return () if why is None or why == _why(before) else (f"a build of this will be refused: {why}",)


def _why(persona: Persona) -> str | None:
    if persona.combine.method == "add":  # takes everything, and needs no numpy to say so
        return None
    from pv.vecstore.merge.methods import check_weights

    try:
        check_weights(persona.combine, {name: one.weight for name, one in persona.behaviours.items()})
    except UsageError as error:
        return f"{error}; {error.hint}" if error.hint else str(error)
    return None
