"""The ways in which one vector came about: read out of its provenance, and brought together in it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pv.registry.provenance import Also, Derived, Provenance, Trained, Unknown, read

__all__ = ["also", "as_behaviour", "origin", "origins", "together", "trained", "ways"]


def trained(known: Provenance) -> Trained | None:
    """The training that a vector is from, however often it was encoded anew; None if it is from none, or not known."""
    first = origin(known)
    return first if isinstance(first, Trained) else None


def origin(known: Provenance) -> Provenance:
    """Where the vector came from that was there before any other encoding."""
    while isinstance(known, Derived):
        known = known.original
    return known


def also(known: Provenance) -> tuple[Also, ...]:
    """The other ways in which the vector came about; what is not listed in this form is passed over."""
    listed = (known.document if isinstance(known, Unknown) else known.extra).get("also")
    found = []
    for one in listed if isinstance(listed, list) else ():
        match one:
            case {"as": str(name), "origin": {"kind": _} as document}:
                found.append(Also(read(document), name))
            case {"origin": {"kind": _} as document}:
                found.append(Also(read(document)))
    return tuple(found)


def ways(known: Provenance) -> tuple[Provenance, ...]:
    """How the vector came about, each way alone; the document's own first."""
    others = also(known)
    return (_alone(known), *(_alone(other.origin) for other in others)) if others else (known,)


def origins(known: Provenance) -> tuple[Provenance, ...]:
    """Where each of them began, before any other encoding."""
    found, left = [], [known]
    while left:
        here = left.pop(0)
        left += [one.origin for one in also(here)]
        if isinstance(here, Derived):
            left.insert(0, here.original)
        else:
            found.append(here)
    return tuple(found)


def together(known: Provenance, other: Provenance, behaviour: str | None = None) -> Provenance:
    """What is known of a vector, and what else became known of it, as `behaviour`."""
    first, others = _alone(known), list(also(known))
    for one in (Also(_alone(other), behaviour), *also(other)):
        if not _same(one.origin, first) and not any(_same(one.origin, o.origin, one, o) for o in others):
            others.append(one)
    more = [pack for one in (other, *(way.origin for way in also(other))) for pack in one.packs]
    return _joined(known, first, others, more)


def as_behaviour(known: Provenance, name: str) -> Provenance:
    """The same, with the way first in which the vector came about as the behaviour `name`, if that is noted."""
    others = list(also(known))
    own = next((one for one in reversed(others) if one.behaviour == name), None)
    if own is None:
        return known
    others.remove(own)
    return _joined(known, own.origin, [Also(_alone(known)), *others])


def _joined(known: Provenance, first: Provenance, others: list[Also], more: Iterable[str] = ()) -> Provenance:
    packs = dict.fromkeys(
        (*known.packs, *first.packs, *(p for one in others for p in one.origin.packs), *more)
    )
    listed: dict[str, Any] = {"packs": list(packs)} if packs else {}
    if others:
        listed["also"] = [one.to_json() for one in others]
    return read({**first.to_json(), **listed}) if listed else known


def _alone(known: Provenance) -> Provenance:
    document = known.to_json()
    return read({key: document[key] for key in document if key != "also"}) if "also" in document else known


def _same(a: Provenance, b: Provenance, *named: Also) -> bool:
    """Whether both say the same, of the same behaviour if those are given; packs of others may have been added."""
    documents = [{k: v for k, v in one.to_json().items() if k != "packs"} for one in (a, b)]
    return documents[0] == documents[1] and len({one.behaviour for one in named}) < 2
