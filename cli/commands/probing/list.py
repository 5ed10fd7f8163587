"""pv probe list"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import table
from pv.cli.say import echo, plain

__all__ = ["command"]

HEADER = ("id", "probe", "of", "rows", "measured")


@click.command("list", short_help="List the recorded probes.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """List the recorded probes, newest first; `pv show ID` shows one.

    \b
    pv probe list
    pv probe list --json
    """
    from pv.cli.probes import rows_words, when

    found = app.repo().probe.known()
    if as_json:
        app.json({"probes": [one.listed() for one in found]})
        return
    rows = [
        (short(one.id), one.kind, plain(f"{one.a['name']}..{one.b['name']}"), rows_words(one), when(one))
        for one in found
    ]
    echo(table(HEADER, rows) if rows else "no probes")
