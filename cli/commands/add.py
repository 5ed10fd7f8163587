"""pv add"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option, read_weight
from pv.cli.report import report
from pv.registry.errors import UsageError

__all__ = ["command"]


@click.command("add", short_help="Bring a behaviour from another revision, or make one of others.")
@click.argument("what", metavar="[NAME=]REV:BEHAVIOUR | NAME=EXPRESSION")
@click.option(
    "--weight",
    type=read_weight,
    metavar="NUMBER",
    help="Its weight here. Default: its weight in REV; of an expression, 1.",
)
@message_option
@json_option
@pass_app
def command(app: App, what: str, weight: float | None, message: str | None, as_json: bool) -> None:
    """Bring one behaviour from another branch, tag or commit, under its own name or a new one.

    Or add behaviours up: an EXPRESSION is a sum of behaviours (NAME, or REV:NAME), each with a factor if need be.
    The new one has their terms, with their weights multiplied in, and weight 1.

    \b
    pv add experiments:pirate
    pv add brief=v1:concise --weight 0.5
    pv add kinder=polite-rude                        # a contrast
    pv add formal-pirate='pirate - casual + formal'  # an analogy
    pv add softer='0.5*v2:style - 0.25*rude'
    """
    name, equals, source = what.partition("=")
    revision, colon, behaviour = what.rpartition(":")
    if equals and name and source.strip():
        made = app.repo().define(name, source, weight=weight, message=message)
    elif colon and revision and behaviour and not equals:
        made = app.repo().add(behaviour, revision, weight=weight, message=message)
    else:
        raise UsageError(
            f"{what!r} is not [NAME=]REV:BEHAVIOUR",
            hint="for example: pv add brief=v1:concise, or pv add kinder='polite - rude'",
        )
    report(app, made, as_json=as_json)
