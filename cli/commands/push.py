"""pv push"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option, threads_option
from pv.cli.render import persona_line, size
from pv.cli.say import echo
from pv.cli.typed import swapped
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.push import Push

__all__ = ["command"]


@click.command("push", short_help="Build, and publish to a Hub repository.")
@click.argument("what", nargs=-1, required=True, metavar="[REV] hf://USER/NAME")
@click.option("-m", "--message", help="The Hub commit's message.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--parent", metavar="SHA", help="Refuse unless the Hub branch is still at this commit.")
@click.option("--force", is_flag=True, help="Push over commits, or a model, that pv did not push.")
@click.option("--endpoint", metavar="URL", help="Use another Hub. Default: HF_ENDPOINT.")
@click.option("-n", "--dry-run", is_flag=True, help="Build and write the card, send nothing.")
@threads_option
@json_option
@pass_app
def command(
    app: App, /, what: tuple[str, ...], message: str | None, threads: int, as_json: bool, **options: Any
) -> None:
    """Build a revision and publish it: weights, config, tokenizer, persona.json and a model card.

    It is one commit on the Hub: readers see the old model or the new one. The card carries the recipe in
    words, the ids, and the scores that `pv eval` measured on exactly this build.

    \b
    pv push hf://me/my-persona
    pv push v1 hf://me/my-persona -m "First release"
    """
    if len(what) > 2:
        raise UsageError("push takes a revision and an address", hint="pv push [REV] hf://USER/NAME")
    rev, address = ("HEAD", what[0]) if len(what) == 1 else what
    if "://" in rev and "://" not in address:
        raise UsageError("the address comes last", hint=swapped(app.line.arguments, rev, address))
    revision = app.repo().at(rev)
    message = message or f"{persona_line(revision.persona)} (pv {short(revision.commit)})"
    with app.progress() as progress:
        made = revision.push(address, message=message, threads=threads, progress=progress, **options)
    if as_json:
        app.json(made)
    else:
        _say(app, made)


def _say(app: App, made: Push) -> None:
    pushed = made.pushed
    if pushed is None:
        echo(made.card)
        return
    if pushed.changed:
        sent = size(pushed.uploaded_bytes)
        app.done(f"pushed {persona_line(made.build.persona)} to {pushed.url} ({sent} sent)")
    else:
        app.note(f"{pushed.url} holds exactly this already")
    for note in made.build.notes:
        app.note(f"note: {note}")
    for note in pushed.notes:
        app.note(f"  the Hub says: {note}")
