"""pv negate"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("negate", short_help="Flip the signs of behaviours' weights.")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@message_option
@json_option
@pass_app
def command(app: App, names: tuple[str, ...], message: str | None, as_json: bool) -> None:
    """Flip the sign of each behaviour's weight, in one commit: its delta is subtracted instead of added.

    \b
    pv negate sycophancy
    """
    report(app, app.repo().negate(*names, message=message), as_json=as_json)
