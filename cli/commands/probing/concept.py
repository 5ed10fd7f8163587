"""pv probe concept"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole
from pv.cli.probes import ask, data_option, probe_options

__all__ = ["command"]

WHAT = """
Directions: the spectrum of differences of activations, not centred. A component is above chance if its share of what
is left is above the 95th percentile of Horn's null. N95 is the fewest components with 95 % of the second moment; if it
still grows with the number of pairs, there is no elbow. Their effect is measured on held-out rows: A is steered with
the mean difference's part in the first N components.

Weights: a row or column counts if its gain for the direction is above the 99th percentile of 200 random directions.
Length: the smallest encoding of the behaviour's vectors whose whole interval of the effect kept is at or above 95 %,
and that costs no more elsewhere. It is the slow part; --no-length leaves it out, the same command without it adds it.
"""


@click.command("concept", short_help="Find how many directions it is, and in how few bytes.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option(
    "--from",
    "source",
    metavar="ROWS",
    help="Rows for the directions.  [default: the behaviour's training rows]",
)
@click.option(
    "--of",
    type=click.Choice(["change", "pairs"]),
    default="change",
    show_default=True,
    help="Differences: B minus A on the same texts, or chosen minus rejected answers in A.",
)
@click.option("--layers", metavar="LAYERS", help="As in 3,9,15; or all.  [default: 5, evenly spread]")
@click.option(
    "--coefficient", type=Number(), default=1.0, show_default=True, metavar="NUMBER",
    help="Strength of the mean difference.",
)  # fmt: skip
@click.option("--effect/--no-effect", "effects", default=True, help="Steer with the components.")
@click.option("--gain/--no-gain", default=True, help="Measure the gain of weight matrices.")
@click.option("--length/--no-length", default=True, help="Search for the smallest encoding.")
@click.option(
    "--seed", type=Whole(0), default=0, show_default=True, metavar="N", help="Seed of random draws."
)
@probe_options
@pass_app
def command(app: App, /, what: str, source: str | None, **how: Any) -> None:
    """Measure how many directions a behaviour is, which weights read or write it, and how few bytes hold it.

    \b
    pv probe concept pirate
    pv probe concept pirate --no-length --plot concept.png --page concept.html
    pv probe concept base..HEAD --data pirate.heldout.jsonl --of pairs
    """
    repo = app.repo()
    rows = None if source is None else app.rows(source, repo)
    ask(app, repo, "concept", what, source=rows, **how)
