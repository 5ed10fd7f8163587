"""pv steer compare"""

from __future__ import annotations

import click

from pv.cli.against import movement_lines
from pv.cli.app import App, pass_app
from pv.cli.options import json_option, model_threads_option

__all__ = ["command"]


@click.command("compare", short_help="Compare what a behaviour and a steering term do to activations.")
@click.argument("behaviour", metavar="[REV:]BEHAVIOUR")
@click.argument("term", metavar="[REV:]TERM")
@click.option("--site", "sites", multiple=True, metavar="SITE", help="There alone. Can be repeated.")
@click.option("--texts", metavar="FILE", help="On these rows, not on pv's neutral set.")
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    behaviour: str,
    term: str,
    sites: tuple[str, ...],
    texts: str | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Compare what a behaviour, alone at weight 1, does to activations with what a steering term does as it is set.

    The base runs over the same texts as it is and steered, then with the behaviour. Layer by layer: how far the
    behaviour moves the mean activation along the way that the term moves it (1: as far), the cosine of the two, and
    whether that is more than chance. What the term does with either sign is left out: any direction does that in
    later layers. Layers that the term does not reach are not shown.

    \b
    pv steer compare formality formal
    pv steer compare v1:formality formal --texts rows.heldout.jsonl
    """
    repo = app.repo()
    rows = None if texts is None else app.rows(texts, repo)
    with app.progress() as progress:
        found = repo.steer.compare(
            behaviour, term, sites=sites or None, texts=rows, threads=threads, progress=progress
        )
    if as_json:
        app.json(found)
        return
    app.page("\n".join(movement_lines(f"{behaviour} along {term}", found.movement)))
    for note in found.notes:
        app.note(f"note: {note}")
