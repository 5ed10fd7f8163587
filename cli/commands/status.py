"""pv status"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import behaviour_line, combine_words
from pv.cli.say import echo
from pv.registry.persona import ENGINE

__all__ = ["command"]


@click.command("status", short_help="Show where you are and what the persona holds.")
@json_option
@pass_app
def command(app: App, as_json: bool) -> None:
    """Show the branch, the base and the behaviours of the persona you are on.

    \b
    pv status
    pv status --json
    """
    repo = app.repo()
    head, persona = repo.head, repo.persona
    if as_json:
        document = {"persona_id": persona.id, "persona": persona.to_json()}
        app.json({"branch": head.branch, "commit": head.commit, **document})
        return
    echo(f"on branch {click.style(head.branch or '-', bold=True)} at {short(head.commit)}")
    echo(f"base     {short(persona.base)}")
    echo(f"combine  {combine_words(persona.combine)}")
    echo(f"output   {persona.output.dtype}, {persona.output.rounding} rounding, seed {persona.output.seed}")
    if persona.engine != ENGINE:
        given = f"`pv config engine {ENGINE}` gives captured checkpoints back bit for bit"
        echo(f"engine   {persona.engine}: {given}")
    if not persona.behaviours:
        echo("no behaviours yet: pv train ROWS.jsonl --as NAME")
        return
    echo("behaviours")
    for name in sorted(persona.behaviours):
        behaviour = persona.behaviours[name]
        vectors = ", ".join(short(term.vector) for term in behaviour.terms)
        echo(f"  {behaviour_line(name, behaviour):<32} {vectors}")
