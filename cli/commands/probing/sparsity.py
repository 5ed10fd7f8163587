"""pv probe sparsity"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole
from pv.cli.probes import ask, data_option, named_rows, neighbours_option, probe_options

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
@probe_options
@pass_app
def command(app: App, /, what: str, **how: Any) -> None:
    """Measure whether a penalty on changes makes fewer neurons carry the behaviour, and what that costs.

    \b
    pv probe sparsity pirate
    pv probe sparsity pirate --penalty weights --strength 0.3 --plot few.png --page few.html
    """
    repo = app.repo()
    how["train"] = None if how["train"] is None else app.rows(how["train"], repo)
    how["neighbours"] = named_rows(app, how["neighbours"], repo)
    ask(app, repo, "sparsity", what, **how)
