"""pv steer list"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.render import number, table
from pv.cli.say import echo
from pv.registry.words import site_words, state_words

__all__ = ["command"]

HEADER = ("name", "coefficient", "sites", "positions", "state")


@click.command("list", short_help="List the steering terms of a revision.")
@click.argument("rev", default="HEAD", metavar="[REV]")
@json_option
@pass_app
def command(app: App, rev: str, as_json: bool) -> None:
    """List the steering terms of a revision: how strong, where, and what is known of them.

    \b
    pv steer list
    pv steer list v1 --json
    """
    found = app.repo().steer.terms(rev)
    if as_json:
        app.json(found)
        return
    terms = sorted(found.steering.terms.items())
    rows = [(n, number(t.coefficient), site_words(t.sites), t.positions, state_words(t)) for n, t in terms]
    echo(table(HEADER, rows) if rows else "no steering terms")
    if len(found.steering.active) > 1:
        app.note(f"applied together by the rule {found.steering.rule}")
