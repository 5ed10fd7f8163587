"""Effects that were measured before, read where they were noted: with a vector, or with a build."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pv.registry import ids
from pv.registry.persona import Persona
from pv.registry.provenance import Derived, Provenance, Trained
from pv.registry.registry import Registry

__all__ = ["Effect", "known_effects", "own_effect"]


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect on held-out rows: nats against the base, its 95 % interval, how many rows, and of which file."""

    mean: float
    low: float
    high: float
    n: int
    data: str

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n, "data": self.data}


def own_effect(origin: Provenance) -> Effect | None:
    """What was measured of a vector alone, at weight 1; None if nothing was, or only of the one it was made from."""
    match origin:
        case Trained(held_out=score) if score is not None:
            return _read(score.get("effect"), score.get("n"), score.get("data"))
        case Derived(measured=measured) if measured is not None:
            effect = measured.get("effect")
            return _read(
                effect, effect.get("n") if isinstance(effect, Mapping) else None, measured.get("data")
            )
    return None


def known_effects(registry: Registry, persona: Persona) -> tuple[Effect, ...]:
    """What was measured of a persona's build, as it is written by default."""
    scores = registry.record(ids.build_id(persona.id, persona.engine)).get("scores")
    found = scores.values() if isinstance(scores, Mapping) else ()
    known = (_read(s.get("effect"), s.get("n"), s.get("data")) for s in found if isinstance(s, Mapping))
    return tuple(sorted((one for one in known if one is not None), key=lambda effect: effect.data))


def _read(effect: Any, n: Any, data: Any) -> Effect | None:
    """None for what is noted in another form: anybody may have written it."""
    try:
        mean, low, high = (float(effect[key]) for key in ("mean", "low", "high"))
        return Effect(mean, low, high, int(n), str(data))
    except (LookupError, TypeError, ValueError):
        return None
