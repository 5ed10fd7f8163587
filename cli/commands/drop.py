"""pv drop"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app
from pv.cli.changes import change

__all__ = ["command"]


@click.command("drop", short_help="Remove a behaviour.")
@click.argument("name")
@click.option("-m", "--message", help="The commit's message.")
@json_option
@pass_app
def command(app: App, name: str, message: str | None, as_json: bool) -> None:
    """Remove a behaviour from the persona. Its vector stays in the history, and can come back.

    \b
    pv drop concise
    pv add concise=HEAD~1:concise     and it is back
    """
    change(app, lambda persona: persona.without(name), message or f"Drop {name}", as_json=as_json)
