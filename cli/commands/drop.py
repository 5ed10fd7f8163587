"""pv drop"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("drop", short_help="Remove a behaviour.")
@click.argument("name")
@message_option
@json_option
@pass_app
def command(app: App, name: str, message: str | None, as_json: bool) -> None:
    """Remove a behaviour from the persona. Its vector stays in the history, and can come back.

    \b
    pv drop concise
    pv add concise=HEAD~1:concise     and it is back
    """
    report(app, app.repo().drop(name, message=message), as_json=as_json)
