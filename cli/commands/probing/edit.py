"""pv probe edit"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole
from pv.cli.probes import ask, data_option, named_rows, neighbours_option, probe_options

__all__ = ["command"]

WHAT = """
The edit is ROME's (arXiv:2202.05262): a rank-one change of one layer's down projection, in closed form, made from the
behaviour's training rows. It is measured as made, and at the strength that comes closest to the trained change's effect
on training rows; the trained change is also measured weakened to that effect.

Paraphrases re-word the prompts of the held-out rows and keep their answers. The claim that is judged: the trained
change carries over further: its effect on paraphrases / effect on the rows is larger than the edit's.
"""


@click.command("edit", short_help="Compare a rank-one edit with the trained change.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option(
    "--train", metavar="ROWS", help="Make the edit from these.  [default: the behaviour's training rows]"
)
@click.option(
    "--paraphrases",
    metavar="ROWS",
    multiple=True,
    help="Held-out rows with re-worded prompts; may be repeated.",
)
@neighbours_option
@click.option(
    "--layer", metavar="N|sweep", help="Edit this layer, or the best of five.  [default: the middle one]"
)
@click.option(
    "--noise",
    type=Number(0, above=True),
    multiple=True,
    metavar="RATIO",
    help="Norm of noise / norm of the change; may be repeated.  [default: 1, 4]",
)
@click.option(
    "--seed", type=Whole(0), default=0, show_default=True, metavar="N", help="Seed of random draws."
)
@probe_options
@pass_app
def command(app: App, /, what: str, **how: Any) -> None:
    """Measure whether a trained change carries over further than an edit of one matrix, and what each damages.

    \b
    pv probe edit pirate --paraphrases pirate.paraphrases.jsonl
    pv probe edit pirate --layer sweep --neighbours plain.jsonl --plot edit.png --page edit.html
    """
    repo = app.repo()
    how["train"] = None if how["train"] is None else app.rows(how["train"], repo)
    for key in ("paraphrases", "neighbours"):
        how[key] = named_rows(app, how[key], repo)
    ask(app, repo, "edit", what, **how)
