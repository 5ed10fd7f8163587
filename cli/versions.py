"""The versions of a behaviour, and where they are current, as text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from pv.cli.app import short
from pv.cli.render import interval, number, size
from pv.cli.say import plain
from pv.registry.persona import Behaviour
from pv.registry.provenance import Captured, Derived, Provenance, Trained

if TYPE_CHECKING:
    from pv.vecstore.repo.effects import Effect
    from pv.vecstore.repo.stored_vector import StoredVector
    from pv.vecstore.repo.vectors import KnownVector
    from pv.vecstore.repo.versions import Version

__all__ = [
    "at_weight_1",
    "effect_words",
    "made_words",
    "one_line_each",
    "ref_name",
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
            yield f"made     {made_words(vector.provenance)}"
            yield f"effect   {at_weight_1(effect_words(vector.effect)) if vector.effect else 'not measured'}"
        yield ""
        yield from (f"    {line}".rstrip() for line in map(plain, version.entry.message.splitlines()))
        yield ""


def one_line_each(versions: Sequence[Version]) -> Iterator[str]:
    for version in versions:
        ids = ", ".join(short(vector.id) for vector in version.vectors)
        made = "; ".join(dict.fromkeys(made_words(vector.provenance) for vector in version.vectors))
        effects = "".join(f", {at_weight_1(effect_words(v.effect))}" for v in version.vectors if v.effect)
        said = (
            f"{click.style(f'{version.number:>3}', fg='yellow')}  {short(version.entry.id)}{_where(version)}"
        )
        said += f" {plain(version.entry.subject)}{_again(version)}"
        yield f"{said}  [weight {_weights(version)}, vector {ids}, {made}{effects}]"


def at_weight_1(line: str) -> str:
    """A line that tells of a vector's own effect: whatever weight it has where it is shown, this is not it."""
    return line.replace(" nats,", " nats at weight 1,", 1)


def effect_words(effect: Effect) -> str:
    said = interval(effect.mean, effect.low, effect.high)
    return f"{said} nats, 95 %, n={effect.n} ({plain(effect.data)})"


def made_words(origin: Provenance) -> str:
    """How a vector was made, in a few words."""
    match origin:
        case Trained(data=data):
            return f"trained on {plain(data.name)}"
        case Captured(source=source):
            return f"captured from {plain(source)}"
        case Derived(encoding=encoding, derived_from=source):
            return f"compressed to {plain(encoding)} from {short(source)}"
    return "by other means"


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
        return "no tip of a branch and no tag uses it; the history keeps it"
    return "in no branch or tag any more; it is kept for undo, until gc forgets the operation"


def ref_names(refs: Iterable[str], current: str | None = None) -> list[str]:
    """What points somewhere, as people name it; the current branch first, as `HEAD -> main`."""
    here = f"refs/heads/{current}"
    refs = list(refs)
    first = [f"HEAD -> {current}"] if here in refs else []
    return first + [ref_name(ref) for ref in refs if ref != here]


def ref_name(ref: str) -> str:
    short_name = ref.removeprefix("refs/heads/").removeprefix("refs/remotes/")
    return short_name.replace("refs/tags/", "tag: ").replace("refs/pv/", "pv: ")


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
