"""pv redo"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.operations import report_way
from pv.cli.options import json_option

__all__ = ["command"]


@click.command("redo", short_help="Take back the last undo.")
@click.option("--dry-run", is_flag=True, help="Show what would be brought back, and change nothing.")
@json_option
@pass_app
def command(app: App, dry_run: bool, as_json: bool) -> None:
    """Do again what the last `pv undo` took back, as long as nothing else was done since.

    \b
    pv redo
    pv redo --dry-run
    """
    repo = app.repo()
    report_way(app, repo, repo.redo(dry_run=dry_run), "redone", as_json=as_json, dry_run=dry_run)
