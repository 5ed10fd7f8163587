"""A conflict on the terminal: both sides in words, and the command that settles it, complete."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from pv.cli.say import plain
from pv.registry.conflict import Conflict, Origin
from pv.registry.persona import Behaviour
from pv.registry.words import origin_words, value_words

__all__ = ["conflict_hint", "conflict_lines", "typed_with"]

SIDES = {  # command: what `ancestor`, `ours` and `theirs` are in it
    "merge": ("before", "ours", "theirs"),
    "revert": ("as committed", "ours (now)", "theirs (reverted)"),
    "cherry-pick": ("before the commit", "ours (now)", "theirs (the commit)"),
}
_DIRECTORY = re.compile(r"-[qv]*C")  # -C, alone or behind flags: the next word is its value


def conflict_lines(arguments: Sequence[str], conflicts: Sequence[Conflict]) -> list[str]:
    """Each conflict with what it was, and what both sides made of it, when and by whom."""
    labels = SIDES.get(arguments[_place(arguments)], SIDES["merge"])
    width = max(map(len, labels))
    lines = []
    for conflict in conflicts:
        lines.append(f"  {plain(conflict.name)}")
        sides = (conflict.ancestor, conflict.ours, conflict.theirs)
        origins = (None, conflict.ours_from, conflict.theirs_from)
        lines += [
            f"    {label:<{width}}  {plain(value_words(side))}{_from(origin)}"
            for label, side, origin in zip(labels, sides, origins, strict=True)
        ]
    return lines


def _from(origin: Origin | None) -> str:
    return "" if origin is None else f" ({plain(origin_words(origin, datetime.now(UTC)))})"


def conflict_hint(arguments: Sequence[str], conflicts: Sequence[Conflict]) -> str:
    """What was typed, with a choice for each conflict added: to be typed as it is, or with other choices."""
    names = [conflict.name for conflict in conflicts]
    if "base" in names:
        return "the two have different bases, and a vector belongs to one: train or commit it on this base"
    # with `ours` for everything a revert, or a pick, would do nothing; a merge is recorded all the same
    side = "ours" if arguments[_place(arguments)] == "merge" else "theirs"
    typed = typed_with(arguments, [word for name in names for word in ("--take", f"{name}={side}")])
    lines = [f"choose ours or theirs{_shares(conflicts)}:", typed]
    for conflict in conflicts:
        if _two_vectors(conflict) and conflict.theirs_from is not None:
            place = f"{conflict.theirs_from.commit[:12]}:{conflict.name}"
            lines.append(f"to keep both, choose ours, then: pv add {conflict.name[:62]}-2={place}")
    return "\n       ".join(lines)


def _shares(conflicts: Sequence[Conflict]) -> str:
    """That a side may be taken at another weight, and for which: those that are a behaviour on both sides."""
    weighted = [
        c.name for c in conflicts if isinstance(c.ours, Behaviour) and isinstance(c.theirs, Behaviour)
    ]
    if not weighted:
        return " for each"
    share = "'theirs*0.5': at half its weight"
    if len(weighted) == len(conflicts):
        return f" ({share}) for each"
    return f" for each (of {', '.join(weighted)} also {share})"


def _two_vectors(conflict: Conflict) -> bool:
    ours, theirs = conflict.ours, conflict.theirs
    return isinstance(ours, Behaviour) and isinstance(theirs, Behaviour) and ours.terms != theirs.terms


def typed_with(arguments: Sequence[str], more: Sequence[str]) -> str:
    """The command line with more options, quoted for a shell: at its end, or before a `--`."""
    place = len(arguments)
    if "--" in arguments[_place(arguments) :]:
        place = _place(arguments) + 1
    return shlex.join(["pv", *arguments[:place], *more, *arguments[place:]])


def _place(arguments: Sequence[str]) -> int:
    """Where the command's name is: behind the options that go before it."""
    index = 0
    while index < len(arguments) - 1 and arguments[index].startswith("-"):
        index += 2 if _DIRECTORY.fullmatch(arguments[index]) else 1
    return index
