"""pv steer extract"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import Whole, json_option, message_option, model_threads_option, read_weight, term_option
from pv.cli.render import number, table
from pv.cli.say import echo
from pv.registry.steering import POSITIONS
from pv.registry.words import site_words

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.extract import Extraction

__all__ = ["command"]

METHODS = ("mean", "pca", "pca-centred", "logistic")
HEADER = ("site", "agreement", "first component", "halves", "against", "norm", "relative norm")


@click.command("extract", short_help="Extract a steering vector from contrast pairs.")
@click.argument("data", metavar="ROWS")
@term_option
@click.option(
    "--layer",
    "layers",
    type=Whole(),
    multiple=True,
    help="Extract at this layer and apply it there. Can be repeated.",
)
@click.option(
    "--at", multiple=True, metavar="SITE", help="Extract at this module and apply it there. Can be repeated."
)
@click.option("--heads", is_flag=True, help="Extract for every attention head (of the layers of --layer).")
@click.option(
    "--read",
    default="answer",
    show_default=True,
    metavar="POSITION",
    help="Tokens to read: answer, answer:N, prompt, prompt:N, end.",
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="mean",
    show_default=True,
    help="How a direction is computed.",
)
@click.option(
    "--coefficient", type=read_weight, help="How much of it is added; 1, or as the term has it already."
)
@click.option(
    "--positions",
    type=click.Choice(POSITIONS),
    help="Which tokens are steered; all, or as the term has it already.",
)
@click.option("--same-token", is_flag=True, help="Read also where every text has the same token.")
@click.option("--no-data", is_flag=True, help="Do not keep the rows in the registry.")
@message_option
@model_threads_option
@json_option
@pass_app
def command(
    app: App, /, data: str, layers: tuple[int, ...], no_data: bool, as_json: bool, **chosen: Any
) -> None:
    """Extract a steering vector: what the base's activations differ in between chosen and rejected answers.

    Directions are kept for every layer, and the one of the middle layer is applied, at coefficient 1; `pv steer
    sweep` finds a better layer and coefficient, `pv steer set` sets them. ROWS have prompt, chosen and rejected; `pv
    steer pairs` writes such rows from a trait. What is read must differ between texts: the token that ends an
    answer is the same in all.

    \b
    pv steer extract formal.jsonl --as formal
    pv steer extract formal.jsonl --as formal --layer 14 --read answer:0
    pv steer extract formal.jsonl --as formal --at model.layers.14.mlp --method logistic
    pv steer extract formal.jsonl --as formal-heads --heads --layer 14
    """
    repo = app.repo()
    rows = app.rows(data, repo)
    with app.progress() as progress:
        made = repo.steer.extract(
            rows, layers=layers or None, keep_rows=not no_data, progress=progress, **chosen
        )
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: Extraction) -> None:
    app.done(
        f"{short(made.commit)} {made.name} is steering vector {short(made.vector)}, on branch {made.branch}"
    )
    app.note(
        f"  {made.method} of {made.pairs} pairs, read at {made.read}; applied {number(made.term.coefficient)} × at "
        f"{site_words(made.term.sites)}, {made.term.positions} positions"
    )
    rows = []
    for site, place in made.places.items():
        q, mark = place.quality, "* " if site in made.applied_at else ""
        numbers = (q.agreement, q.first_component, q.halves, q.against, q.norm, q.relative_norm)
        rows.append([f"{mark}{site}", *(f"{x:.2f}" for x in numbers[:4]), *(f"{x:.3g}" for x in numbers[4:])])
    echo(table(HEADER, rows))
    for site in made.applied_at:
        for said in made.places[site].warnings:
            app.note(f"note: {site}: {said}")
    for note in made.notes:
        app.note(f"note: {note}")
