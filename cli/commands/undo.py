"""pv undo"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.operations import report_way
from pv.cli.options import Whole, json_option
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("undo", short_help="Take back the last operation, or go back to an earlier one.")
@click.option("-n", "count", type=Whole(1), metavar="N", help="Take back the last N operations, as one.")
@click.option("--to", type=Whole(1), metavar="OP", help="Go back to how it was after operation OP.")
@click.option("--dry-run", is_flag=True, help="Show what would be taken back, and change nothing.")
@json_option
@pass_app
def command(app: App, count: int | None, to: int | None, dry_run: bool, as_json: bool) -> None:
    """Take back the last operation, whatever it was and whoever did it: a commit, a merge, a branch, a switch.

    `pv op log` lists the operations, also those of other terminals. Undo again goes one operation further back; an
    undo is an operation too, and `pv redo` takes it back.

    \b
    pv undo
    pv undo --dry-run
    pv undo --to 12
    """
    if count is not None and to is not None:
        raise UsageError(
            "-n and --to exclude each other", hint="use one of them; `pv op log` has the numbers for --to"
        )
    repo = app.repo()
    went = repo.undo(count=count or 1, to=to, dry_run=dry_run)
    report_way(app, repo, went, "undone", as_json=as_json, dry_run=dry_run)
