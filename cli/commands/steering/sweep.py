"""pv steer sweep"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Number, Whole, json_option, model_threads_option
from pv.cli.say import echo
from pv.registry.exit_codes import ExitCode

__all__ = ["command"]

WHAT = """
Effect: margin (log-probability of the chosen answer minus that of the rejected one, in nats) minus the margin of the
same model without steering, averaged over rows. Damage: log-likelihood that plain text loses, in nats a token; a
sweep measures it on a third of pv's neutral set, or on all rows of --neutral. Replies are broken if they are empty or
fall into a loop; text breaks where they are surely more often broken than without the term (replies), or where more
than 0.5 nats a token are lost (damage).

The suggestion has the largest effect on the first half of the rows, of the cells that are not broken and cost at most
--damage; its effect is reported on the other half, which had no say in the choice. Everything measured is kept: the
same command again, or with more layers, measures only what is not known yet.
"""


@click.command("sweep", short_help="Find a good layer and coefficient for a steering term.", epilog=WHAT)
@click.argument("name", metavar="TERM")
@click.option(
    "--data", required=True, metavar="ROWS", help="Rows to choose on; keep held-out rows for pv steer test."
)
@click.option(
    "--layers", metavar="LAYERS", help="3,9,15; all; or every:3.  [default: up to 8, evenly spread]"
)
@click.option(
    "--coefficients",
    default="-2,-1,0.5,1,2,4,8",
    show_default=True,
    metavar="NUMBERS",
    help="Coefficients, with commas between them.",
)
@click.option("--replies", type=Whole(0), default=12, show_default=True, metavar="N", help="Ask N prompts.")
@click.option("--max-tokens", type=Whole(1), default=48, show_default=True, help="Cut replies there.")
@click.option("--neutral", metavar="FILE", help="Measure damage on these rows.")
@click.option(
    "--damage",
    type=Number(0),
    default=0.05,
    show_default=True,
    help="What the suggestion may cost on plain text, in nats a token.",
)
@click.option("--plot", metavar="FILE.png", help="Draw it, with matplotlib.")
@click.option("--page", metavar="FILE.html", help="Write it as one HTML page, with the picture.")
@click.option("--set", "commit", is_flag=True, help="Set the suggestion, in a commit.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    name: str,
    data: str,
    neutral: str | None,
    plot: str | None,
    page: str | None,
    commit: bool,
    as_json: bool,
    **how: Any,
) -> None:
    """Measure a steering term at several layers with several coefficients: effect, damage, and where text breaks.

    \b
    pv steer sweep formal --data formal.jsonl
    pv steer sweep formal --data formal.jsonl --layers 3,9,15 --coefficients -1,1,2,4
    pv steer sweep formal --data formal.jsonl --layers every:3 --plot sweep.png --page sweep.html
    pv steer sweep formal --data formal.jsonl --set
    """
    from pv.cli.sweeps import sweep_lines  # numpy, which the list of commands does without

    repo = app.repo()
    rows = app.rows(data, repo)
    how["neutral"] = None if neutral is None else app.rows(neutral, repo)
    how |= {key: app.file(one) for key, one in (("plot", plot), ("page", page)) if one is not None}
    with app.progress() as progress:
        found = repo.steer.sweep(name, rows, set=commit, progress=progress, **how)
    if as_json:
        app.json(found)
    else:
        for line in sweep_lines(found):
            echo(line)
        for note in found.notes:
            app.note(f"note: {note}")
        for file in filter(None, (plot, page)):
            app.done(f"wrote {file}")
    if commit and found.set_in is None:
        if not as_json:
            app.note("nothing was set: no suggestion has an effect above 0 for certain")
        raise click.exceptions.Exit(ExitCode.NO)
