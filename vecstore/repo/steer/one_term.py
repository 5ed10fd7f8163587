"""One steering term by itself: the persona with no other, at a site and with a coefficient that need not be its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from pv.registry.errors import UsageError
from pv.registry.persona import Persona
from pv.registry.steering import POSITIONS, Steering
from pv.vecstore.activations.sites import layer_of

__all__ = ["MOST", "at_layer", "one_term"]

MOST = 1e6


def one_term(
    persona: Persona,
    name: str,
    coefficient: float | None = None,
    sites: Sequence[str] | None = None,
    positions: str | None = None,
) -> Persona:
    """What is None stays as the term has it. Raises NotFoundError, UsageError."""
    term = replace(persona.steering_term(name), retired_by=None)
    if positions is not None and positions not in POSITIONS:
        raise UsageError(f"no positions {positions!r}", hint=f"there are: {', '.join(POSITIONS)}")
    if coefficient is not None and not abs(coefficient) <= MOST:  # so put, NaN is refused too
        raise UsageError(f"a coefficient is a finite number up to a million, not {coefficient:g}")
    term = term.changed(
        coefficient=term.coefficient if coefficient is None else float(coefficient),
        sites=term.sites if sites is None else tuple(sites),
        positions=positions or term.positions,
    )
    alone = replace(persona, steering=Steering.of(persona.steering.rule, {name: term}))
    return alone.checked()


def at_layer(sites: Iterable[str], layer: int, name: str) -> list[str]:
    """The sites of a term's vector that are in a layer. Raises UsageError that says in which it has some."""
    known = {site: layer_of(site) for site in sites}
    found = [site for site, one in known.items() if one == layer]
    if not found:
        numbers = sorted({one for one in known.values() if one is not None})
        raise UsageError(
            f"the vector of steering term {name} has no direction in layer {layer}",
            hint=f"it has some in {_numbers(numbers)}"
            if numbers
            else f"its sites have no layer: {', '.join(known)}"[:200],
        )
    return found


def _numbers(numbers: Sequence[int]) -> str:
    """`layers 0 to 29`; `layers 3, 9, 15`"""
    if len(numbers) > 3 and numbers[-1] - numbers[0] == len(numbers) - 1:
        return f"layers {numbers[0]} to {numbers[-1]}"
    some = ", ".join(map(str, numbers[:12]))
    return f"layer{'' if len(numbers) == 1 else 's'} {some}{' and more' if len(numbers) > 12 else ''}"
