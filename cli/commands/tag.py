"""pv tag"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.say import echo, plain
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("tag", short_help="List, create or delete tags.")
@click.argument("name", required=False)
@click.argument("at", required=False, metavar="[REV]")
@click.option("-d", "--delete", is_flag=True, help="Delete the tag NAME.")
@json_option
@pass_app
def command(app: App, name: str | None, at: str | None, delete: bool, as_json: bool) -> None:
    """List tags, create one at a revision (HEAD by default), or delete one.

    \b
    pv tag
    pv tag v1
    pv tag -d v1
    """
    repo = app.repo()
    if name is None:
        if delete:
            raise UsageError("-d needs the name of a tag", hint="pv tag -d NAME; `pv tag` lists them")
        if as_json:
            app.json({"tags": repo.tags()})
            return
        for tag, commit in sorted(repo.tags().items()):
            echo(f"{plain(tag):<24} {short(commit)}")
        return
    if delete:
        if at is not None:
            raise UsageError("-d takes the name of one tag, and nothing else", hint=f"pv tag -d {name}")
        repo.delete_tag(name)
        said = f"deleted tag {name}"
    else:
        said = f"tag {name} at {short(repo.tag(name, at or 'HEAD').commit)}"
    if as_json:
        app.json({"tags": repo.tags()})
    else:
        app.done(said)
