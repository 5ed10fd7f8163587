"""pv redo"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app

__all__ = ["command"]


@click.command("redo", short_help="Take back the last undo.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """Do again what the last `pv undo` took back.

    \b
    pv redo
    """
    registry = app.registry()
    undone = registry.redo().undoes
    again = next((o.command for o in registry.operations() if o.seq == undone), "what was undone")
    if as_json:
        app.json({"redone": again})
    else:
        app.done(f"did again: {again}")
