"""pv scale"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option, read_weight
from pv.cli.report import report

__all__ = ["command"]


@click.command(
    "scale", short_help="Set the weight of a behaviour.", context_settings={"ignore_unknown_options": True}
)
@click.argument("name")
@click.argument("weight", type=read_weight)
@message_option
@json_option
@pass_app
def command(app: App, name: str, weight: float, message: str | None, as_json: bool) -> None:
    """Set the weight of a behaviour. 0 builds as if it were absent; below 0 it is reversed.

    \b
    pv scale listening 0.5
    pv scale listening -0.5
    """
    report(app, app.repo().scale(name, weight, message=message), as_json=as_json)
