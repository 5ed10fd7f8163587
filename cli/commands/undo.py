"""pv undo"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option
from pv.cli.report import report_head

__all__ = ["command"]


@click.command("undo", short_help="Take back the last operation.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """Take back the last operation, whatever it was: a commit, a merge, a branch, a switch.

    Undo again goes one operation further back.

    \b
    pv undo
    """
    repo = app.repo()
    before = repo.head
    undone = repo.undo()
    report_head(app, repo, before, f"took back: {undone.command}", as_json=as_json, undone=undone.command)
