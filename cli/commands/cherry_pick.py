"""pv cherry-pick"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, mainline_options, read_takes, take_option
from pv.cli.report import report

__all__ = ["command"]


@click.command("cherry-pick", short_help="Apply the change of another commit to this branch.")
@click.argument("rev")
@mainline_options("compare it with")
@take_option
@json_option
@pass_app
def command(
    app: App, rev: str, mainline: int | None, takes: tuple[str, ...], message: str | None, as_json: bool
) -> None:
    """Apply the change of another commit to this branch, as a new commit.

    \b
    pv cherry-pick experiments~1
    """
    repo = app.repo()
    made = repo.cherry_pick(rev, mainline=mainline, take=read_takes(takes), message=message)
    report(app, made, as_json=as_json)
