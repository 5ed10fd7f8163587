"""pv steer retire"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, json_option, message_option, model_threads_option
from pv.cli.passage import say_passage

__all__ = ["command"]


@click.command("retire", short_help="Retire a steering term: the weights do it now.")
@click.argument("term")
@click.argument("data", metavar="ROWS")
@click.option("--by", required=True, metavar="BEHAVIOUR", help="The behaviour that does it in the weights.")
@click.option(
    "--share",
    "least",
    type=Number(0),
    default=0.8,
    show_default=True,
    help="Least share of the steered effect.",
)
@message_option
@model_threads_option
@json_option
@pass_app
def command(app: App, /, term: str, data: str, by: str, as_json: bool, **given: Any) -> None:
    """Retire a verified steering term, if a behaviour alone gives at least --share of its effect, at no more damage.

    The term is kept in the persona, and applied no more; `pv steer unretire` takes that back. Exit code 1 if it
    does not pass.

    \b
    pv steer retire formal formal.heldout.jsonl --by formal
    pv steer unretire formal
    """
    repo = app.repo()
    rows = app.rows(data, repo)
    with app.progress() as progress:
        found = repo.steer.retire(term, rows, by=by, progress=progress, **given)
    say_passage(app, found, f"{term} is retired by {by}", as_json=as_json)
