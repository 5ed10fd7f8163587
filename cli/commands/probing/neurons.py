"""pv probe neurons"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Whole
from pv.cli.probes import ask, data_option, probe_options

__all__ = ["command"]

WHAT = """
A neuron is an input of the projection that ends an MLP. At the last token before the chosen and the rejected answer
differ, the first k neurons of a ranking take in A the value that they have in B on the same text; nothing else is
changed. Margin: logit of the chosen answer's next token minus that of the rejected one's, in nats. A row is
flipped if that is above 0 and the chosen token is the likeliest of all.

The ranking is by delta (what the neuron does in B minus in A) times the gradient of the margin; baselines are |delta|,
|gradient|, integrated gradients and random neurons of about the same |delta|; in the best layer, in the last third of
the layers, and in all. Claims are judged in the last two. Results are recorded as they are measured: the same command
resumes.
"""


@click.command("neurons", short_help="Find how few MLP neurons flip the behaviour.", epilog=WHAT)
@click.argument("what", metavar="WHAT")
@data_option
@click.option(
    "--prompts", type=Whole(8, 48), default=48, show_default=True, help="Use at most this many rows."
)
@click.option("--draws", type=Whole(1, 50), default=5, show_default=True, help="Number of random rankings.")
@click.option(
    "--steps", type=Whole(1, 1000), default=5, show_default=True, help="Steps of integrated gradients."
)
@click.option(
    "--seed", type=Whole(0), default=0, show_default=True, help="Seed of halves, draws and intervals."
)
@probe_options
@pass_app
def command(app: App, /, what: str, **how: Any) -> None:
    """Find how few MLP neurons of A, set to their values in B, flip the answer's deciding token.

    \b
    pv probe neurons pirate
    pv probe neurons pirate --data pirate.heldout.jsonl --plot neurons.png --page neurons.html
    pv probe neurons HEAD~1..HEAD --data pirate.heldout.jsonl
    """
    ask(app, app.repo(), "neurons", what, **how)
