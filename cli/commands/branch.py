"""pv branch"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.say import echo, plain
from pv.cli.terminal import cut
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("branch", short_help="List, create, rename or delete branches.")
@click.argument("name", required=False)
@click.argument("at", required=False, metavar="[REV | NEW]")
@click.option("-d", "--delete", is_flag=True, help="Delete the branch NAME.")
@click.option(
    "-m", "--move", is_flag=True, help="Rename the branch NAME to NEW; with one name, the current branch."
)
@click.option("-v", "verbose", is_flag=True, help="List each with the message of its commit.")
@json_option
@pass_app
def command(
    app: App, name: str | None, at: str | None, delete: bool, move: bool, verbose: bool, as_json: bool
) -> None:
    """List branches, create one at a revision (HEAD by default), rename one, or delete one.

    \b
    pv branch -v
    pv branch terse
    pv branch terse HEAD~2
    pv branch -m terse brief
    pv branch -d terse
    """
    repo = app.repo()
    if name is None or verbose:
        _check_alone(name, delete=delete, move=move)
        current, branches = repo.head.branch, repo.branches()
        if as_json:
            app.json({"branches": branches, "current": current})
            return
        for branch, commit in sorted(branches.items()):
            said = f"  {plain(repo.log(commit, limit=1)[0].subject)}" if verbose else ""
            echo(cut(f"{'* ' if branch == current else '  '}{plain(branch):<24} {short(commit)}{said}"))
        return
    if delete and (move or at):
        raise UsageError("-d takes the name of one branch, and nothing else", hint=f"pv branch -d {name}")
    if move:
        old, new = (repo.head.branch, name) if at is None else (name, at)
        said = f"branch {old} is {new} now, at {short(repo.rename_branch(old, new).commit)}"
    elif delete:
        said = (
            f"deleted branch {name}, which was at {short(repo.delete_branch(name))}; `pv undo` brings it back"
        )
    else:
        said = f"branch {name} at {short(repo.branch(name, at or 'HEAD').commit)}"
    if as_json:
        app.json({"branches": repo.branches(), "current": repo.head.branch})
    else:
        app.done(said)


def _check_alone(name: str | None, *, delete: bool, move: bool) -> None:
    if delete or move:
        option = "-d" if delete else "-m"
        raise UsageError(f"{option} needs the name of a branch", hint=f"pv branch {option} NAME")
    if name is not None:
        raise UsageError("-v lists the branches, and takes no name", hint="pv branch -v")
