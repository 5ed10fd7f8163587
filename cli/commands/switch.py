"""pv switch"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import persona_line
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("switch", short_help="Switch to another branch.")
@click.argument("name")
@click.option("-c", "--create", is_flag=True, help="Create the branch first.")
@click.argument("at", required=False, metavar="[REV]")
@json_option
@pass_app
def command(app: App, name: str, create: bool, at: str | None, as_json: bool) -> None:
    """Switch to another branch, or with - to the previous one; -c creates it, at a revision (HEAD by default).

    \b
    pv switch main
    pv switch -
    pv switch -c experiment
    pv switch -c from-v1 v1
    """
    repo = app.repo()
    if at is not None and not create:
        raise UsageError("a revision goes with -c", hint=f"pv switch -c {name} {at}")
    if create:
        repo.branch(name, at or "HEAD", switch=True)
    else:
        repo.switch(name)
    head = repo.head
    if as_json:
        app.json({"branch": head.branch, "commit": head.commit})
    else:
        app.done(f"on branch {head.branch} at {short(head.commit)}")
        app.note(f"  {persona_line(repo.persona)}")
