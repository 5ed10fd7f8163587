"""pv steer drop"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("drop", short_help="Remove steering terms.")
@click.argument("names", nargs=-1, required=True, metavar="TERM...")
@message_option
@json_option
@pass_app
def command(app: App, names: tuple[str, ...], message: str | None, as_json: bool) -> None:
    """Remove steering terms from the persona, in one commit. Their vectors stay in the history.

    \b
    pv steer drop formal
    pv steer add HEAD~1:formal     and it is back
    """
    report(app, app.repo().steer.drop(*names, message=message), as_json=as_json)
