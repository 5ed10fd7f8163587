"""Effects that were measured before, read where they were noted: with a vector, or with a build."""

from __future__ import annotations

from collections.abc import Mapping

from pv.registry import ids
from pv.registry.persona import Persona
from pv.registry.provenance import Derived, Provenance, Trained
from pv.registry.provenance_ways import ways
from pv.registry.registry import Registry
from pv.vecstore.publish.words import Effect

__all__ = ["known_effects", "own_effect"]


def own_effect(origin: Provenance) -> Effect | None:
    """What was measured of a vector alone, at weight 1; None if nothing was, or only of the one it was made from.

    Several that were compressed together were measured together: `Effect.vectors` says how many.
    """
    for way in ways(origin):
        match way:
            case Trained(held_out=score) | Derived(measured=score) if found := Effect.read(score):
                return found
    return None


def known_effects(registry: Registry, persona: Persona) -> tuple[Effect, ...]:
    """What was measured of a persona's build, as it is written by default."""
    scores = registry.record(ids.build_id(persona.recipe.id, persona.engine)).get("scores")
    found = map(Effect.read, scores.values() if isinstance(scores, Mapping) else ())
    return tuple(sorted((one for one in found if one is not None), key=lambda effect: effect.data))
