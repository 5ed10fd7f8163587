"""pv probe concept"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, model_threads_option
from pv.cli.probes import data_option, named_rows, say_probe

__all__ = ["command"]

WHAT = """
Directions: the spectrum of differences of activations, not centred. A component is above chance if its share of what
is left is above the 95th percentile of Horn's null. N95 is the fewest components with 95 % of the whole; if it still
grows with the number of pairs, there is no elbow. What they do is measured: A is steered with the mean difference's
part in the first N components, on held-out rows.

Weights: a row or column deals with the direction if its gain is above the 99th percentile of 200 random directions.
Length: the smallest encoding of the behaviour's vectors whose interval of the share kept is at or above 95 %, and that
costs no more elsewhere. It is the slow part; --no-length leaves it out, and the same command without adds it.
"""


@click.command("concept", short_help="How many directions it is, and how short.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option(
    "--from", "source", metavar="ROWS", help="Rows for the directions.  [default: its training rows]"
)
@click.option(
    "--of",
    type=click.Choice(["change", "pairs"]),
    default="change",
    show_default=True,
    help="Differences of B and A on the same texts, or of chosen and rejected answers in A.",
)
@click.option("--layers", metavar="LAYERS", help="3,9,15; or all.  [default: 5, evenly spread]")
@click.option(
    "--coefficient", type=Number(), default=1.0, show_default=True, metavar="NUMBER",
    help="The mean difference is added so many times.",
)  # fmt: skip
@click.option("--effect/--no-effect", "effects", default=True, help="Steer with the components.")
@click.option("--gain/--no-gain", default=True, help="Measure the gain of weight matrices.")
@click.option("--length/--no-length", default=True, help="Search for the smallest encoding.")
@click.option("--seed", type=Whole(0), default=0, show_default=True, metavar="N", help="For random draws.")
@click.option("--again", is_flag=True, help="Measure anew what is known.")
@click.option("--plot", metavar="FILE.png", help="Draw it, with matplotlib.")
@click.option("--page", metavar="FILE.html", help="Write it as one HTML page, with the picture.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    what: str,
    data: tuple[str, ...],
    source: str | None,
    plot: str | None,
    page: str | None,
    as_json: bool,
    **how: Any,
) -> None:
    """Measure how many directions a behaviour is, which weights deal with it, and how short it can be written.

    \b
    pv probe concept pirate
    pv probe concept pirate --no-length --plot concept.png --page concept.html
    pv probe concept base..HEAD --data pirate.heldout.jsonl --of pairs
    """
    repo = app.repo()
    rows, how["source"] = named_rows(app, data, repo), None if source is None else app.rows(source, repo)
    how |= {key: app.file(one) for key, one in (("plot", plot), ("page", page)) if one is not None}
    with app.progress() as progress:
        found = repo.probe.concept(what, rows, progress=progress, **how)
    say_probe(app, "concept", found, filter(None, (plot, page)), as_json=as_json)
