"""pv rows"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import counted

__all__ = ["command"]


@click.command("rows", short_help="Print the rows that a behaviour was trained on.")
@click.argument("what", metavar="[REV:]BEHAVIOUR")
@click.option("--held-out", is_flag=True, help="The held-out rows that it was measured on, instead.")
@click.option("-o", "--output", metavar="FILE", help="Write them to a new file.")
@json_option
@pass_app
def command(app: App, what: str, held_out: bool, output: str | None, as_json: bool) -> None:
    """Print the rows of a behaviour's training that the registry keeps, as JSON lines.

    They have the id of those that were trained on: training on them again, with the same options on the same machine,
    gives the same vector. Exit code 5 if they were not kept.

    \b
    pv rows listening > listening.jsonl
    pv rows v1:listening -o listening.jsonl
    pv rows listening --held-out -o listening.heldout.jsonl
    """
    revision, _, behaviour = what.rpartition(":")
    found = app.repo().at(revision or "HEAD").rows(behaviour, held_out=held_out)
    file = None if output is None else app.file(output)
    if file is not None:
        found.write(file)
    if as_json:
        app.json({**found.to_json(), "output": None if file is None else str(file)})
    elif file is None:
        app.json_lines(row.to_json() for row in found.rows)
    else:
        app.done(f"{counted(len(found.rows), 'row')} of {found.data} ({short(found.rows.id)}) in {file}")
