"""The versions of a behaviour, and where they are current, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pv.cli.app import short
from pv.cli.render import number, size
from pv.cli.say import plain
from pv.registry.persona import Behaviour
from pv.registry.words import ref_name
from pv.vecstore.publish.lineage import brief
from pv.vecstore.publish.words import at_weight_1, effect_name

if TYPE_CHECKING:
    from pv.vecstore.publish.words import Effect
    from pv.vecstore.repo.stored_vector import StoredVector
    from pv.vecstore.repo.vectors import KnownVector
    from pv.vecstore.repo.versions import Version

__all__ = [
    "effect_lines",
    "effect_words",
    "one_line_each",
    "ref_names",
    "stored_words",
    "use_words",
    "version_blocks",
]


def version_blocks(versions: Sequence[Version]) -> Iterator[str]:
    """As `pv log` shows commits, newest first."""
    for version in versions:
        yield f"{click.style(f'version {version.number}', fg='yellow')}{_where(version)}"
        yield f"commit   {short(version.entry.id)}"
        yield f"author   {plain(version.entry.author)}, {version.entry.time.astimezone():%Y-%m-%d %H:%M}"
        for entry in version.again:
            yield f"again    {short(entry.id)}, {plain(entry.author)}, {entry.time.astimezone():%Y-%m-%d %H:%M}"
        yield f"weight   {_weights(version)}"
        for vector, factor in zip(version.vectors, _factors(version.behaviour), strict=True):
            yield f"vector   {short(vector.id)}{factor}, {stored_words(vector)}"
            yield f"made     {brief(vector.provenance, plain)}"
            yield from map(at_weight_1, effect_lines("effect   ", [vector.effect]))
        yield ""
        yield from (f"    {line}".rstrip() for line in map(plain, version.entry.message.splitlines()))
        yield ""


def one_line_each(versions: Sequence[Version]) -> Iterator[str]:
    for version in versions:
        ids = ", ".join(short(vector.id) for vector in version.vectors)
        made = "; ".join(dict.fromkeys(brief(vector.provenance, plain) for vector in version.vectors))
        measured = dict.fromkeys(at_weight_1(effect_words(v.effect)) for v in version.vectors if v.effect)
        effects = "".join(f", {effect}" for effect in measured)
        said = (
            f"{click.style(f'{version.number:>3}', fg='yellow')}  {short(version.entry.id)}{_where(version)}"
        )
        said += f" {plain(version.entry.subject)}{_again(version)}"
        yield f"{said}  [weight {_weights(version)}, vector {ids}, {made}{effects}]"


def effect_words(effect: Effect) -> str:
    """An effect, and the damage beside it, where all has one line."""
    damage = f", {effect.damage.brief()}" if effect.damage else ""
    tasks = f", {effect.tasks.brief(plain)}" if effect.tasks else ""
    return f"{effect.figures(plain)}{damage}{tasks}{effect.brief(plain)}"


def effect_lines(title: str, effects: Iterable[Effect | None]) -> Iterator[str]:
    """Effects and what to know of each, a line each; `title` is before the first."""
    for effect in effects:
        if effect is None:
            yield f"{title}not measured"
            continue
        name = effect_name(effect.overlap).removeprefix("held-out effect").removeprefix("effect ")
        together = f"of {effect.vectors} vectors together" if effect.vectors > 1 else ""
        said = " ".join(filter(None, (together, name, effect.figures(plain))))
        for line in (said, *effect.beside(plain), *effect.caveats(plain)):
            yield f"{title}{line}"
            title = " " * len(title)


def stored_words(vector: StoredVector) -> str:
    """How a vector is kept."""
    stored = "its pack is not here" if vector.stored_bytes is None else size(vector.stored_bytes)
    return f"{vector.encoding}, {stored}"


def use_words(known: KnownVector) -> str:
    """Who uses a vector, or what keeps it if nobody does."""
    if known.uses:
        where: dict[str, list[str]] = {}
        for use in known.uses:
            where.setdefault(use.behaviour, []).append(ref_name(use.ref))
        return "; ".join(f"{name} in {', '.join(map(plain, refs))}" for name, refs in where.items())
    if known.kept_for == "history":
        return "used by no branch tip or tag; kept by the history"
    return "used by no branch or tag any more; kept for undo, until gc forgets the operation"


def ref_names(refs: Iterable[str], current: str | None = None) -> list[str]:
    """What points somewhere, as people name it; the current branch first, as `HEAD -> main`."""
    here = f"refs/heads/{current}"
    refs = list(refs)
    first = [f"HEAD -> {current}"] if here in refs else []
    return first + [ref_name(ref) for ref in refs if ref != here]


def _where(version: Version) -> str:
    names = ", ".join(ref_names(version.now))
    return click.style(f" ({plain(names)})", fg="green") if names else ""


def _again(version: Version) -> str:
    return f" (again in {', '.join(short(entry.id) for entry in version.again)})" if version.again else ""


def _weights(version: Version) -> str:
    """The one that it came with, and those that it has now, if they are others."""
    now = {ref_name(ref): weight for ref, weight in version.now.items() if weight != version.behaviour.weight}
    since = ", ".join(f"{number(weight)} on {plain(name)}" for name, weight in now.items())
    return f"{number(version.behaviour.weight)}{f' (now {since})' if since else ''}"


def _factors(behaviour: Behaviour) -> list[str]:
    return ["" if term.coefficient == 1 else f" × {number(term.coefficient)}" for term in behaviour.terms]
