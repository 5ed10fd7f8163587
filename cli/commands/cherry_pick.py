"""pv cherry-pick"""

from __future__ import annotations

import click

from pv.cli.app import App, json_option, pass_app, short
from pv.cli.changes import parse_takes, report, take_option

__all__ = ["command"]


@click.command("cherry-pick", short_help="Do here what one commit did elsewhere.")
@click.argument("rev")
@click.option(
    "-m",
    "--mainline",
    type=click.IntRange(1),
    metavar="N",
    help="For a merge: the parent to compare it with (1 is the branch that was merged into).",
)
@take_option
@click.option("--message", help="The commit's message.")
@json_option
@pass_app
def command(
    app: App, rev: str, mainline: int | None, takes: tuple[str, ...], message: str | None, as_json: bool
) -> None:
    """Repeat on this branch what one commit did on another.

    \b
    pv cherry-pick experiments~1
    """
    registry = app.registry()
    target = registry.resolve(rev)
    commit = registry.cherry_pick(target, mainline, take=parse_takes(takes), message=message)
    report(app, registry, commit, f"picks {short(target)}", as_json=as_json, picked=target)
