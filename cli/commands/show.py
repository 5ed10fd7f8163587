"""pv show"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import behaviour_line, combine_words, interval, size
from pv.cli.say import plain
from pv.registry.provenance import Captured, Derived, Provenance, Trained

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
        f"persona  {short(persona.id)}, base {plain(shown.base)}",
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
    match origin:
        case Captured(source=source):
            return [f"captured from {source}"]
        case Derived():
            source, error = short(origin.derived_from), origin.relative_l2
            line = f"{origin.encoding} of {source}, error of tau {error:.3f}"
            return [line, *_origin(origin.original)]
        case Trained():
            return _training(origin)
    if origin.document.get("kind") in ("captured", "derived", "trained"):
        return ["where it comes from is noted in a form that this pv does not know"]
    return []


def _training(trained: Trained) -> list[str]:
    data, options = trained.data, trained.options
    lines = [f"trained on {data.rows} rows of {data.name} ({short(data.id)})"]
    said = [f"{options['optimizer']}"] if "optimizer" in options else []
    said += [f"lr {options['lr']:g}"] if isinstance(options.get("lr"), int | float) else []
    said += [f"{options['epochs']} epochs"] if "epochs" in options else []
    said += [f"{key} {options[key]}" for key in ("batch", "seed") if key in options]
    loss = "" if trained.loss is None else f"; loss {trained.loss[0]:.3f} to {trained.loss[1]:.3f}"
    lines.append(f"{', '.join(said)}{loss}")
    try:
        held = trained.held_out or {}
        e = held["effect"]
        words = interval(e["mean"], e["low"], e["high"])
        lines.append(f"held-out effect {words} nats, 95 %, n={held['n']} ({held['data']})")
    except (LookupError, TypeError, ValueError):
        pass  # not measured, or noted in another form
    return lines
