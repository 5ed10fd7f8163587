"""pv add"""

from __future__ import annotations

from dataclasses import replace

import click

from pv.cli.app import App, json_option, pass_app
from pv.cli.app import weight as read_weight
from pv.cli.changes import change
from pv.registry.errors import UsageError
from pv.registry.persona import Persona, check_name

__all__ = ["command"]


@click.command("add", short_help="Bring a behaviour from another revision.")
@click.argument("what", metavar="[NAME=]REV:BEHAVIOUR")
@click.option(
    "--weight", type=read_weight, metavar="NUMBER", help="Its weight here; as it is there by default."
)
@click.option("-m", "--message", help="The commit's message.")
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
    name = check_name(name or behaviour)
    registry = app.registry()
    commit = registry.resolve(revision)
    theirs = registry.persona(commit)
    brought = theirs.behaviour(behaviour)
    if weight is not None:
        brought = replace(brought, weight=weight)

    def edit(persona: Persona) -> Persona:
        if persona.base != theirs.base:
            raise UsageError(f"{revision} is a persona of another base ({theirs.base[:12]})")
        if name in persona.behaviours:
            raise UsageError(
                f"there is a behaviour {name!r} here already",
                hint=f"give it another name: pv add NEW={source}",
            )
        return persona.with_behaviour(name, brought)

    change(
        app, edit, message or f"Add {name} from {revision}:{behaviour}", as_json=as_json, also_from=[commit]
    )
