"""pv steer train"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import (
    Number,
    Whole,
    json_option,
    message_option,
    model_threads_option,
    name_option,
    weight_option,
)
from pv.vecstore.publish.lineage import losses, measured
from pv.vecstore.publish.words import at_weight_1

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.train import TrainedIn

__all__ = ["command"]


@click.command("train", short_help="Train a behaviour that does what a steering term does.")
@click.argument("term")
@click.argument("data", metavar="[ROWS]", required=False)
@name_option
@weight_option
@click.option(
    "--route",
    type=click.Choice(["distil", "rows"]),
    default="distil",
    show_default=True,
    help="Learn the steered model's distribution, or the rows.",
)
@click.option("--held-out", metavar="FILE", help="Rows to measure on.")
@click.option("--epochs", type=Whole(1), help="Passes over the rows.")
@click.option("--lr", type=Number(0), help="Learning rate.")
@click.option("--seed", type=Whole(), help="Seed of the order of rows and of the projections.")
@click.option(
    "--max-tokens", type=Whole(1), default=64, show_default=True, help="Longest steered reply, in tokens."
)
@message_option
@model_threads_option
@json_option
@pass_app
def command(
    app: App, /, term: str, data: str | None, held_out: str | None, as_json: bool, **chosen: Any
) -> None:
    """Train a verified steering term into the weights, as a behaviour of its own; then `pv steer retire` the term.

    By default the model learns the steered model's own distribution (KL divergence) on the steered model's replies to
    the prompts of the rows, while ordinary answers are held to the base. ROWS are by default those that the term was
    extracted from.

    \b
    pv steer train formal --as formal --held-out formal.heldout.jsonl
    pv steer train formal --as formal --route rows
    """
    given = {key: value for key, value in chosen.items() if value is not None}
    repo = app.repo()
    rows = None if data is None else app.rows(data, repo)
    held = None if held_out is None else app.rows(held_out, repo)
    with app.progress() as progress:
        made = repo.steer.train(term, rows, held_out=held, progress=progress, **given)
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: TrainedIn) -> None:
    run = made.training
    app.note(f"  {losses(run.provenance)}, {run.seconds:.0f} s")
    app.done(f"{short(run.commit)} {run.name} is vector {short(run.vector)}, on branch {run.branch}")
    for note in run.notes:
        app.note(f"  {note}")
    if run.held_out is not None:
        found, *notes = measured(run.provenance)
        app.note(f"  {at_weight_1(found)}")
        for note in notes:
            app.note(f"  {note}")
    app.note(f"  next: pv steer retire {made.term} ROWS --by {run.name}")
