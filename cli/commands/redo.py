"""pv redo"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.report import report_head

__all__ = ["command"]


@click.command("redo", short_help="Take back the last undo.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """Do again what the last `pv undo` took back.

    \b
    pv redo
    """
    repo = app.repo()
    before = repo.head
    again = repo.redo()
    report_head(app, repo, before, f"did again: {again.command}", as_json=as_json, redone=again.command)
