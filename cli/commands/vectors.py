"""pv vectors"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import counted, size
from pv.cli.say import plain
from pv.cli.versions import effect_lines, stored_words, use_words
from pv.vecstore.publish.lineage import brief
from pv.vecstore.publish.words import at_weight_1

__all__ = ["command"]


@click.command("vectors", short_help="List the vectors that the registry has.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """List every vector, newest first: how it is stored, how it was made, its measured effect, and what uses it.

    `pv show ID` shows one of them; `pv log BEHAVIOUR` those of one behaviour.

    \b
    pv vectors
    pv vectors --json
    """
    found = app.repo().vectors()
    if as_json:
        app.json({"vectors": [known.to_json() for known in found]})
        return
    lines = []
    for known in found:
        vector, first = known.vector, known.first
        made = f"{brief(vector.provenance, plain)}, {first.time.astimezone():%Y-%m-%d %H:%M}"
        lines += [f"{click.style(short(vector.id), fg='yellow')}  {stored_words(vector)}, {made}"]
        lines += map(at_weight_1, effect_lines("  effect ", [vector.effect] if vector.effect else []))
        lines += [f"  {plain(use_words(known))}"]
    stored = sum(known.vector.stored_bytes or 0 for known in found)
    lines += [f"{counted(len(found), 'vector')}, {size(stored)}" if found else "no vectors yet"]
    app.page("\n".join(lines))
