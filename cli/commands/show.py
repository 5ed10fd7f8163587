"""pv show"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import behaviour_line, combine_words, size
from pv.cli.say import plain
from pv.registry.provenance import Derived, Provenance, Trained
from pv.vecstore.publish.lineage import NOTHING, lineage, losses, measured, original, ran, taught

if TYPE_CHECKING:
    from pv.vecstore.repo.show import Shown

__all__ = ["command"]


@click.command("show", short_help="Show one commit and its persona.")
@click.argument("rev", default="HEAD")
@json_option
@pass_app
def command(app: App, rev: str, as_json: bool) -> None:
    """Show a commit: its persona, what changed in it, and where its vectors came from.

    \b
    pv show
    pv show v1 --json
    """
    shown = app.repo().at(rev).show()
    if as_json:
        app.json(shown)
    else:
        app.page("\n".join([*_commit(shown), *_behaviours(shown), *_vectors(shown)]))


def _commit(shown: Shown) -> list[str]:
    entry, persona = shown.entry, shown.entry.persona
    return [
        click.style(f"commit {entry.id}", fg="yellow"),
        f"author   {plain(entry.author)} <{plain(entry.email)}>, {entry.time.astimezone():%Y-%m-%d %H:%M}",
        *(f"parent   {short(parent)}" for parent in entry.parents),
        f"persona  {short(persona.id)}, base {short(persona.base)}",
        f"combine  {combine_words(persona.combine)}",
        "",
        *(f"    {line}".rstrip() for line in map(plain, entry.message.splitlines())),
        "",
    ]


def _behaviours(shown: Shown) -> Iterator[str]:
    """All of them, marked as in a diff against the first parent."""
    before, now = shown.before, shown.entry.persona.behaviours
    for name in sorted(now.keys() | before.keys()):
        old, new = before.get(name), now.get(name)
        if old == new and new is not None:
            yield f"  {behaviour_line(name, new)}"
        alike = old is not None and new is not None and behaviour_line(name, old) == behaviour_line(name, new)
        for sign, colour, one in (("-", "red", old), ("+", "green", new)):
            if one is not None and old != new:
                which = f"  vector {', '.join(short(term.vector) for term in one.terms)}" if alike else ""
                yield click.style(f"{sign} {behaviour_line(name, one)}{which}", fg=colour)


def _vectors(shown: Shown) -> Iterator[str]:
    for vector in shown.vectors:
        stored = "not here" if vector.stored_bytes is None else size(vector.stored_bytes)
        yield ""
        yield f"vector {short(vector.id)}  {vector.encoding}, {stored}"
        for line in _origin(vector.provenance):
            yield f"  {plain(line)}"


def _origin(origin: Provenance) -> list[str]:
    """Of a vector in another encoding: what is known of it, and then of the one before."""
    if isinstance(origin, Derived):
        source, error = short(origin.derived_from), origin.relative_l2
        now = f"{origin.encoding} of {source}, relative L2 error of the vector {error:.3f}"
        return [now, *measured(origin), *_made(origin.original), *original(origin)]
    return [*_made(origin), *measured(origin)]


def _made(origin: Provenance) -> list[str]:
    if not isinstance(origin, Trained):
        return [] if lineage(origin) == NOTHING else [lineage(origin)]
    how = "; ".join(words for words in (ran(origin), losses(origin)) if words)
    return [f"{taught(origin)} ({short(origin.data.id)})", *([how] if how else [])]
