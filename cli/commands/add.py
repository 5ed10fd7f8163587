"""pv add"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option, read_weight
from pv.cli.report import report
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("add", short_help="Bring a behaviour from another revision.")
@click.argument("what", metavar="[NAME=]REV:BEHAVIOUR")
@click.option(
    "--weight", type=read_weight, metavar="NUMBER", help="Its weight here. Default: its weight in REV."
)
@message_option
@json_option
@pass_app
def command(app: App, what: str, weight: float | None, message: str | None, as_json: bool) -> None:
    """Bring one behaviour from another branch, tag or commit, under its own name or a new one.

    \b
    pv add experiments:pirate
    pv add brief=v1:concise --weight 0.5
    """
    name, equals, source = what.rpartition("=")
    revision, colon, behaviour = source.rpartition(":")
    if not colon or not revision or not behaviour or (equals and not name):
        raise UsageError(f"{what!r} is not [NAME=]REV:BEHAVIOUR", hint="for example: pv add brief=v1:concise")
    made = app.repo().add(behaviour, revision, name=name or None, weight=weight, message=message)
    report(app, made, as_json=as_json)
