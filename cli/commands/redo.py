"""pv redo"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option

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
    again = repo.redo()
    if as_json:
        app.json({"redone": again.command, "branch": repo.head.branch, "commit": repo.head.commit})
    else:
        app.done(f"did again: {again.command}")
