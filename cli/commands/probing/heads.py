"""pv probe heads"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Whole
from pv.cli.probes import ask, data_option, probe_options

__all__ = ["command"]

HOW = """
A head's change is that of its output relative to its size, over the answers' tokens; its own change leaves out what
came from other parts, and is tested against noise of the same norm. The verdict is by grafts: the share of the margin's
shift from A to B that A gains with B's weights in the top heads alone, compared with random heads of the same layers,
and the share that B loses without them. Half of the rows rank the heads, the other half test.

Results are recorded as they are measured: the same command resumes, or gives what is recorded.
"""


@click.command("heads", short_help="Find which attention heads changed, and which carry it.", epilog=HOW)
@click.argument("what", metavar="WHAT")
@data_option
@click.option("--prompts", type=Whole(16), default=48, show_default=True, help="Use at most this many rows.")
@click.option("--draws", type=Whole(1), default=20, show_default=True, help="Random sets of heads to graft.")
@click.option(
    "--noise",
    type=Whole(2),
    default=6,
    show_default=True,
    help="Draws of noise for the null of own change.",
)
@click.option("--seed", type=Whole(0), default=0, show_default=True, help="Seed of random draws.")
@probe_options
@pass_app
def command(app: App, /, what: str, **how: Any) -> None:
    """Measure how every attention head changed from A to B, and whether a few of them carry the behaviour.

    \b
    pv probe heads pirate
    pv probe heads pirate --data pirate.heldout.jsonl --page heads.html
    pv probe heads HEAD~1..HEAD --data rows.jsonl --plot heads.png
    """
    ask(app, app.repo(), "heads", what, **how)
