"""pv probe sparsity"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, model_threads_option
from pv.cli.probes import data_option, named_rows, neighbours_option, say_probe

__all__ = ["command"]

WHAT = """
The behaviour's training rows are trained again with its own options, once plainly and once with each strength of a
penalty: after every step what changed is drawn back toward the base, neuron by neuron and head by head (or weight by
weight), and what does not keep moving is exactly the base's again. Of each training, the neurons that changed most are
grafted onto the base: k50 is how many of them carry half of its effect.

A training takes about as long as pv train does, and the grafts that go with it a few minutes.
"""


@click.command("sparsity", short_help="Train for few changed neurons, against plain training.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option("--train", metavar="ROWS", help="Train these.  [default: the behaviour's training rows]")
@neighbours_option
@click.option(
    "--penalty",
    type=click.Choice(["neurons", "weights"]),
    default="neurons",
    show_default=True,
    help="Draw back whole neurons and heads, or single weights.",
)
@click.option(
    "--strength",
    "strengths",
    type=Number(0, above=True),
    multiple=True,
    metavar="S",
    help="Of the penalty; may be repeated.  [default: 0.1, 0.3, 0.6]",
)
@click.option("--seed", type=Whole(0), default=0, show_default=True, metavar="N", help="Of draws.")
@click.option("--again", is_flag=True, help="Measure anew what is known.")
@click.option("--plot", metavar="FILE.png", help="Draw it, with matplotlib.")
@click.option("--page", metavar="FILE.html", help="Write it as one HTML page, with the picture.")
@model_threads_option
@json_option
@pass_app
def command(app: App, /, what: str, data: tuple[str, ...], as_json: bool, **how: Any) -> None:
    """Does training that asks for few changed neurons need fewer of them to carry the behaviour, and what does it cost?

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
