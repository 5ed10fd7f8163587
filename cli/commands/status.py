"""pv status"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option
from pv.cli.render import behaviour_line, combine_words
from pv.cli.say import echo, plain
from pv.registry.persona import ENGINE, Persona
from pv.registry.words import first_of, output_words, state_words, steering_words
from pv.vecstore.repo.refused import refused

__all__ = ["command"]

WIDEST_LINE = 60


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
    head, persona, base = repo.head, repo.persona, repo.at().base_state()
    if as_json:
        document = {"persona_id": persona.id, "persona": persona.to_json()}
        found = {"name": base.manifest.name, "found": base.found}
        app.json({"branch": head.branch, "commit": head.commit, "base": found, **document})
        return
    echo(f"on branch {click.style(head.branch or '-', bold=True)} at {short(head.commit)}")
    echo(f"base     {plain(base.words)}{'' if base.found else plain(f', not found at {base.looked_at}')}")
    if not base.found:
        app.note(
            "  `pv base move DIR` says where it is now: nothing can be built, trained or measured without it"
        )
    echo(f"combine  {combine_words(persona.combine)}")
    echo(f"output   builds are written {output_words(persona.output)}")
    if persona.engine != ENGINE:
        given = f"`pv config engine {ENGINE}` gives captured checkpoints back bit for bit"
        echo(f"engine   {persona.engine}: {given}")
    if persona.behaviours:
        _behaviours(persona)
    else:
        echo("no behaviours yet: pv train ROWS.jsonl --as NAME")
    if persona.steering.terms:
        echo("steering")
    for name, term in sorted(persona.steering.terms.items()):
        echo(plain(f"  {name}  {steering_words(term)}; {state_words(term)}"))
    for note in refused(Persona(persona.base), persona):
        app.note(f"note: {note}")


def _behaviours(persona: Persona) -> None:
    echo("behaviours")
    lines = {name: behaviour_line(name, one) for name, one in sorted(persona.behaviours.items())}
    wide = min(max(map(len, lines.values())), WIDEST_LINE)  # one long line moves no other
    for name, line in lines.items():
        vectors = ", ".join(first_of([short(term.vector) for term in persona.behaviours[name].terms]))
        echo(f"  {line:<{wide}}  {vectors}")
