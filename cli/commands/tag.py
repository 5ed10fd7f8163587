"""pv tag"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app, short
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
    """List tags, name a revision (HEAD by default), or delete a name.

    \b
    pv tag
    pv tag v1
    pv tag -d v1
    """
    registry = app.registry()
    if name is None:
        if delete:
            raise UsageError("-d needs the name of a tag")
        tags = registry.tags()
        if as_json:
            app.json({"tags": dict(tags)})
            return
        for tag, commit in sorted(tags.items()):
            echo(f"{plain(tag):<24} {short(commit)}")
        return
    if delete:
        registry.delete_tag(name)
        said = f"deleted tag {name}"
    else:
        commit = registry.tag(name, registry.resolve(at or "HEAD"))
        said = f"tag {name} at {short(commit)}"
    if as_json:
        app.json({"tags": dict(registry.tags())})
    else:
        app.done(said)
