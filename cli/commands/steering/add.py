"""pv steer add"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("add", short_help="Bring a steering term from another revision.")
@click.argument("what", metavar="[NEW=]REV:TERM")
@message_option
@json_option
@pass_app
def command(app: App, what: str, message: str | None, as_json: bool) -> None:
    """Bring a steering term from another revision, as it is there, under its own name or a new one.

    \b
    pv steer add v1:formal
    pv steer add polite=v1:formal
    """
    new, _, place = what.rpartition("=")
    revision, colon, name = place.rpartition(":")
    if not (colon and revision and name):
        raise click.UsageError(f"{what[:80]!r} is not REV:TERM, as in v1:formal")
    report(app, app.repo().steer.add(name, revision, new=new or None, message=message), as_json=as_json)
