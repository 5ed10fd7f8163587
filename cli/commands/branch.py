"""pv branch"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.say import echo, plain
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("branch", short_help="List, create or delete branches.")
@click.argument("name", required=False)
@click.argument("at", required=False, metavar="[REV]")
@click.option("-d", "--delete", is_flag=True, help="Delete the branch NAME.")
@json_option
@pass_app
def command(app: App, name: str | None, at: str | None, delete: bool, as_json: bool) -> None:
    """List branches, create one at a revision (HEAD by default), or delete one.

    \b
    pv branch
    pv branch terse
    pv branch terse HEAD~2
    pv branch -d terse
    """
    repo = app.repo()
    if name is None:
        if delete:
            raise UsageError("-d needs the name of a branch")
        current, branches = repo.head.branch, repo.branches()
        if as_json:
            app.json({"branches": branches, "current": current})
            return
        for branch, commit in sorted(branches.items()):
            echo(f"{'* ' if branch == current else '  '}{plain(branch):<24} {short(commit)}")
        return
    if delete:
        repo.delete_branch(name)
        said = f"deleted branch {name}"
    else:
        said = f"branch {name} at {short(repo.branch(name, at or 'HEAD').commit)}"
    if as_json:
        app.json({"branches": repo.branches(), "current": repo.head.branch})
    else:
        app.done(said)
