"""pv revert"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, mainline_options, read_takes, take_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("revert", short_help="Undo a commit by a new commit.")
@click.argument("rev")
@mainline_options("go back to")
@take_option
@json_option
@pass_app
def command(
    app: App, rev: str, mainline: int | None, takes: tuple[str, ...], message: str | None, as_json: bool
) -> None:
    """Take back what a commit did, in a new commit: what it added goes, what it replaced comes back.

    The persona is a recipe, so a build afterwards is byte for byte as if the commit had never been.

    \b
    pv revert HEAD
    pv revert v1~2
    pv revert HEAD -m "Too terse"
    pv revert HEAD -m 1            a merge: back to what was there before it
    """
    made = app.repo().revert(rev, mainline=mainline, take=read_takes(takes), message=message)
    report(app, made, as_json=as_json)
