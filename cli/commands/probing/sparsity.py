"""pv probe sparsity"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, model_threads_option
from pv.cli.probes import data_option, named_rows, neighbours_option, say_probe

__all__ = ["command"]

WHAT = """
The behaviour is trained again on A with its own rows and options, once plainly and once with each strength of a
penalty: after every step the change is shrunk toward 0, neuron by neuron and head by head (or weight by weight), and
where the gradient does not keep pushing one way it becomes exactly 0. The neurons that changed most are then grafted
onto A: k50 is how many of them carry half of the effect.

Each training takes about as long as pv train, and its grafts a few minutes.
"""


@click.command("sparsity", short_help="Train for few changed neurons, beside plain training.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option("--train", metavar="ROWS", help="Train on these.  [default: the behaviour's training rows]")
@neighbours_option
@click.option(
    "--penalty",
    type=click.Choice(["neurons", "weights"]),
    default="neurons",
    show_default=True,
    help="Shrink the change of whole neurons and heads, or of single weights.",
)
@click.option(
    "--strength",
    "strengths",
    type=Number(0, above=True),
    multiple=True,
    metavar="S",
    help="Strength of the penalty; may be repeated.  [default: 0.1, 0.3, 0.6]",
)
@click.option(
    "--seed", type=Whole(0), default=0, show_default=True, metavar="N", help="Seed of random draws."
)
@click.option("--again", is_flag=True, help="Measure again what is recorded.")
@click.option("--plot", metavar="FILE.png", help="Draw it, with matplotlib.")
@click.option("--page", metavar="FILE.html", help="Write it as one HTML page, with the picture.")
@model_threads_option
@json_option
@pass_app
def command(app: App, /, what: str, data: tuple[str, ...], as_json: bool, **how: Any) -> None:
    """Measure whether a penalty on changes makes fewer neurons carry the behaviour, and what that costs.

    \b
    pv probe sparsity pirate
    pv probe sparsity pirate --penalty weights --strength 0.3 --plot few.png --page few.html
    """
    repo = app.repo()
    how["train"] = None if how["train"] is None else app.rows(how["train"], repo)
    how["neighbours"] = named_rows(app, how["neighbours"], repo)
    files = {key: app.file(how[key]) for key in ("plot", "page") if how[key] is not None}
    rows = named_rows(app, data, repo)
    with app.progress() as progress:
        found = repo.probe.sparsity(what, rows, progress=progress, **{**how, **files})
    say_probe(app, "sparsity", found, filter(None, (how["plot"], how["page"])), as_json=as_json)
