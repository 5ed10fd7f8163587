"""One vector in two behaviours of a persona: together they count it twice, which is seldom meant."""

from __future__ import annotations

from collections.abc import Iterator

from pv.registry.persona import Persona

__all__ = ["counted_twice"]


def counted_twice(before: Persona, after: Persona) -> tuple[str, ...]:
    """A remark for each behaviour that is new in having the vector of another, with the same sign.

    Of several terms the first is a behaviour's own; the others, which --on subtracts, are those of other behaviours.
    """
    had, found = _sharing(before), []
    for vector, names in sorted(_sharing(after).items()):
        new = [name for name in names if name not in had.get(vector, ())]
        if len(names) < 2 or not new:
            continue
        others = [name for name in names if name not in new] or [new.pop(0)]
        for name in new:
            found.append(
                f"{name} is the same vector as {_and(others)}: together they count it {_times(len(others) + 1)}"
            )
            others.append(name)
    return tuple(found)


def _sharing(persona: Persona) -> dict[tuple[str, bool], list[str]]:
    found: dict[tuple[str, bool], list[str]] = {}
    for name, vector in _own(persona):
        found.setdefault(vector, []).append(name)
    return found


def _own(persona: Persona) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Each behaviour with its own vector, and whether that is added."""
    for name, behaviour in sorted(persona.behaviours.items()):
        first = behaviour.terms[0]
        if share := behaviour.weight * first.coefficient:
            yield name, (first.vector, share > 0)


def _and(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"
