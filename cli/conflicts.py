"""A conflict on the terminal: both sides in words, and the command that settles it, complete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pv.cli.say import plain
from pv.cli.typed import place, typed_with
from pv.registry.changes import same
from pv.registry.conflict import Conflict, Origin
from pv.registry.persona import Behaviour
from pv.registry.words import origin_words, value_words

__all__ = ["conflict_hint", "conflict_lines"]

SIDES = {  # command: what `ancestor`, `ours` and `theirs` are in it
    "merge": ("before", "ours", "theirs"),
    "revert": ("as committed", "ours (now)", "theirs (reverted)"),
    "cherry-pick": ("before the commit", "ours (now)", "theirs (the commit)"),
}


ALONE = " or 0.7 (that weight)"


def conflict_lines(arguments: Sequence[str], conflicts: Sequence[Conflict]) -> list[str]:
    """Each conflict with what it was, and what both sides made of it, when and by whom."""
    labels = SIDES.get(arguments[place(arguments)], SIDES["merge"])
    width = max(map(len, labels))
    lines = []
    for conflict in conflicts:
        lines.append(f"  {plain(_name(conflict))}")
        sides = (conflict.ancestor, conflict.ours, conflict.theirs)
        origins = (None, conflict.ours_from, conflict.theirs_from)
        lines += [
            f"    {label:<{width}}  {plain(value_words(side))}{_from(origin)}"
            for label, side, origin in zip(labels, sides, origins, strict=True)
        ]
    return lines


def _name(conflict: Conflict) -> str:
    return f"steering {conflict.name}" if conflict.kind == "steering" else conflict.name


def _from(origin: Origin | None) -> str:
    return "" if origin is None else f" ({plain(origin_words(origin, datetime.now(UTC)))})"


def conflict_hint(arguments: Sequence[str], conflicts: Sequence[Conflict]) -> str:
    """What was typed, with a choice for each conflict added: to be typed as it is, or with other choices."""
    names = [conflict.take for conflict in conflicts]
    if any((conflict.name, conflict.kind) == ("base", "field") for conflict in conflicts):
        return "the two have different bases, and a vector belongs to one: train or commit it on this base"
    # with `ours` for everything a revert, or a pick, would do nothing; a merge is recorded all the same
    side = "ours" if arguments[place(arguments)] == "merge" else "theirs"
    choices = [word for name in names for word in ("--take", f"{name}={side}")]
    lines = [f"choose ours or theirs{_shares(conflicts)}:", typed_with(arguments, choices)]
    for conflict in conflicts:
        if _two_vectors(conflict) and conflict.theirs_from is not None:
            source = f"{conflict.theirs_from.commit[:12]}:{conflict.name}"
            lines.append(f"to keep both, choose ours, then: pv add {conflict.name[:62]}-2={source}")
    return "\n       ".join(lines)


def _shares(conflicts: Sequence[Conflict]) -> str:
    """What else may be chosen, and for which: a side's behaviour at another weight."""
    offers: dict[str, list[str]] = {}
    for conflict in conflicts:
        if offer := _share(conflict):
            offers.setdefault(offer, []).append(conflict.name)
    if not offers:
        return " for each"
    (first, *_) = offers
    if len(offers[first]) == len(conflicts):
        return f" for each, or {first}"
    return " for each" + "".join(f"; of {', '.join(names)} also {offer}" for offer, names in offers.items())


def _share(conflict: Conflict) -> str:
    """Of a behaviour that only one side has, that side's; and where it is clear of what, a weight alone."""
    ours, theirs = conflict.ours, conflict.theirs
    if not isinstance(theirs, Behaviour):
        return f"'ours*0.5' (half its weight){ALONE}" if isinstance(ours, Behaviour) else ""
    clear = not isinstance(ours, Behaviour) or same(replace(ours, weight=theirs.weight), theirs)
    return f"'theirs*0.5' (half its weight){ALONE if clear else ''}"


def _two_vectors(conflict: Conflict) -> bool:
    ours, theirs = conflict.ours, conflict.theirs
    return isinstance(ours, Behaviour) and isinstance(theirs, Behaviour) and ours.terms != theirs.terms
