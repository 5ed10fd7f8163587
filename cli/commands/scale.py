"""pv scale"""

from __future__ import annotations

from dataclasses import replace

import click

from pv.cli.app import App, json_option, pass_app
from pv.cli.app import weight as read_weight
from pv.cli.changes import change
from pv.cli.render import number
from pv.registry.persona import Persona

__all__ = ["command"]


@click.command(
    "scale", short_help="Set the weight of a behaviour.", context_settings={"ignore_unknown_options": True}
)
@click.argument("name")
@click.argument("weight", type=read_weight)
@click.option("-m", "--message", help="The commit's message.")
@json_option
@pass_app
def command(app: App, name: str, weight: float, message: str | None, as_json: bool) -> None:
    """Set the weight of a behaviour. 0 builds as if it were absent; below 0 it is reversed.

    \b
    pv scale listening 0.5
    pv scale listening -0.5
    """

    def edit(persona: Persona) -> Persona:
        return persona.with_behaviour(name, replace(persona.behaviour(name), weight=weight))

    change(app, edit, message or f"Scale {name} to {number(weight)}", as_json=as_json)
