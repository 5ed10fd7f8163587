"""pv steer verify"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, message_option, model_threads_option
from pv.cli.passage import say_passage

__all__ = ["command"]


@click.command("verify", short_help="Verify a steering term against its controls.")
@click.argument("term")
@click.argument("data", metavar="ROWS")
@click.option(
    "--random", "randoms", type=Whole(4), default=8, show_default=True, help="Number of random directions."
)
@click.option(
    "--shuffled", "shuffles", type=Whole(), default=4, show_default=True, help="Number of shuffles of labels."
)
@click.option("--prompt", metavar="TEXT", help="Measure the base with this system prompt too.")
@click.option(
    "--damage",
    "most_damage",
    type=Number(0),
    default=0.1,
    show_default=True,
    help="Most damage, in nats per token.",
)
@message_option
@model_threads_option
@json_option
@pass_app
def command(app: App, /, term: str, data: str, as_json: bool, **given: Any) -> None:
    """Verify a tested steering term: does the direction do it, or would any direction?

    Its effect must be above that of random directions and of directions extracted with shuffled labels, all of the
    same norm, with its whole interval; its damage at most --damage; and no more replies may be broken (empty, or in a
    loop) than the base's, for certain. --prompt asks the base for the behaviour instead, to be shown beside. Exit code
    1 if it does not pass.

    \b
    pv steer verify formal formal.heldout.jsonl
    pv steer verify formal formal.heldout.jsonl --prompt "Answer formally."
    """
    repo = app.repo()
    rows = app.rows(data, repo)
    with app.progress() as progress:
        found = repo.steer.verify(term, rows, progress=progress, **given)
    say_passage(app, found, f"{term} is verified", as_json=as_json)
