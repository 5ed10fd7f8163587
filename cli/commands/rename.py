"""pv rename"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("rename", short_help="Give a behaviour another name.")
@click.argument("old")
@click.argument("new")
@message_option
@json_option
@pass_app
def command(app: App, old: str, new: str, message: str | None, as_json: bool) -> None:
    """Give a behaviour another name, in a commit; its weight and its vectors stay.

    To a merge, the old name is gone and the new one was added: a branch that has changed the behaviour since
    is asked about it.

    \b
    pv rename concise brief
    """
    report(app, app.repo().rename(old, new, message=message), as_json=as_json)
