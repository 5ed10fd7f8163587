"""pv negate"""

from __future__ import annotations

from dataclasses import replace

import click

from pv.cli.app import App, json_option, pass_app
from pv.cli.changes import change
from pv.registry.persona import Persona

__all__ = ["command"]


@click.command("negate", short_help="Flip the sign of a behaviour's weight.")
@click.argument("name")
@click.option("-m", "--message", help="The commit's message.")
@json_option
@pass_app
def command(app: App, name: str, message: str | None, as_json: bool) -> None:
    """Flip the sign of a behaviour's weight: the model is pushed the other way.

    \b
    pv negate sycophancy
    """

    def edit(persona: Persona) -> Persona:
        behaviour = persona.behaviour(name)
        return persona.with_behaviour(name, replace(behaviour, weight=0.0 - behaviour.weight))

    change(app, edit, message or f"Negate {name}", as_json=as_json)
