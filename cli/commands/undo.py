"""pv undo"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app

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
    undone = app.registry().undo()
    if as_json:
        app.json({"undone": undone.command})
    else:
        app.done(f"took back: {undone.command}")
