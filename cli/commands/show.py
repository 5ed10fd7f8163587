"""pv show"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, json_option, pass_app, short
from pv.cli.render import behaviour_line, combine_words, interval, size
from pv.cli.say import plain

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
    registry = app.registry()
    commit = registry.resolve(rev)
    entry = registry.log(commit, limit=1)[0]
    persona = entry.persona
    provenance = {vector: registry.provenance(commit, vector) for vector in persona.vectors}
    if as_json:
        app.json(
            {
                "id": commit,
                "parents": list(entry.parents),
                "message": entry.message,
                "time": entry.time.isoformat(),
                "author": {"name": entry.author, "email": entry.email},
                "persona_id": persona.id,
                "persona": persona.to_json(),
                "provenance": provenance,
            }
        )
        return
    lines = [
        click.style(f"commit {commit}", fg="yellow"),
        f"author   {plain(entry.author)} <{plain(entry.email)}>, {entry.time.astimezone():%Y-%m-%d %H:%M}",
        *(f"parent   {short(parent)}" for parent in entry.parents),
        f"persona  {short(persona.id)}, base {short(persona.base)}",
        f"combine  {combine_words(persona.combine)}",
        "",
        *(f"    {line}".rstrip() for line in map(plain, entry.message.splitlines())),
        "",
    ]
    before = registry.persona(entry.parents[0]).behaviours if entry.parents else {}
    for name in sorted(persona.behaviours.keys() | before.keys()):
        old, new = before.get(name), persona.behaviours.get(name)
        if old == new and new is not None:
            lines.append(f"  {behaviour_line(name, new)}")
        alike = old is not None and new is not None and behaviour_line(name, old) == behaviour_line(name, new)
        for sign, colour, one in (("-", "red", old), ("+", "green", new)):
            if one is not None and old != new:
                which = f"  vector {', '.join(short(term.vector) for term in one.terms)}" if alike else ""
                lines.append(click.style(f"{sign} {behaviour_line(name, one)}{which}", fg=colour))
    for vector in persona.vectors:
        stored = size(registry.packs.size(vector)) if registry.packs.has(vector) else "not here"
        lines += ["", f"vector {short(vector)}  {registry.vector(commit, vector).encoding}, {stored}"]
        try:
            origin = _origin(provenance[vector])
        except (LookupError, TypeError, ValueError, AttributeError):  # anybody may have written it
            origin = ["where it comes from is noted in a form that this pv does not know"]
        lines += [f"  {plain(line)}" for line in origin]
    app.page("\n".join(lines))


def _origin(provenance: dict[str, Any]) -> list[str]:
    if provenance.get("kind") == "captured":
        return [f"captured from {provenance.get('source')}"]
    if provenance.get("kind") == "derived":
        error = provenance["error"]["relative_l2"]
        line = f"{provenance['encoding']} of {short(provenance['derived_from'])}, error of tau {error:.3f}"
        return [line, *_origin(provenance.get("original", {}))]
    if provenance.get("kind") != "trained":
        return []
    data, options, loss = provenance["data"], provenance["options"], provenance["loss"]
    lines = [
        f"trained on {data['rows']} rows of {data['name']} ({short(data['id'])})",
        f"{options['optimizer']}, lr {options['lr']:g}, {options['epochs']} epochs, batch {options['batch']}, "
        f"seed {options['seed']}; loss {loss[0]:.3f} to {loss[1]:.3f}",
    ]
    if held := provenance.get("held_out"):
        e = held["effect"]
        lines.append(
            f"held-out effect {interval(e['mean'], e['low'], e['high'])} nats, 95 %, n={held['n']} ({held['data']})"
        )
    return lines
