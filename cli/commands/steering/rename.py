"""pv steer rename"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("rename", short_help="Give a steering term another name.")
@click.argument("name", metavar="TERM")
@click.argument("new")
@message_option
@json_option
@pass_app
def command(app: App, name: str, new: str, message: str | None, as_json: bool) -> None:
    """Give a steering term another name, in a commit. What was measured of it stays.

    \b
    pv steer rename formal polite
    """
    report(app, app.repo().steer.rename(name, new, message=message), as_json=as_json)
