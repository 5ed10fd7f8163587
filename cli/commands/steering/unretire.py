"""pv steer unretire"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("unretire", short_help="Apply a retired steering term again.")
@click.argument("name", metavar="TERM")
@message_option
@json_option
@pass_app
def command(app: App, name: str, message: str | None, as_json: bool) -> None:
    """Apply a retired steering term again, in a commit. What was measured of it stays, and so does the behaviour that
    retired it.

    \b
    pv steer unretire formal
    """
    report(app, app.repo().steer.unretire(name, message=message), as_json=as_json)
