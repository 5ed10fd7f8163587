"""pv steer import"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import Whole, json_option, message_option, read_weight, term_option
from pv.cli.render import number
from pv.registry.steering import POSITIONS
from pv.registry.words import site_words

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.import_file import Import

__all__ = ["CONVENTIONS", "FORMATS", "command"]


FORMATS = ("gguf", "lm-eval", "persona-vectors", "svec", "safetensors")
CONVENTIONS = ("llama.cpp", "repeng", "cvector-generator", "applied", "measured")


@click.command("import", short_help="Import a steering vector from another tool's file.")
@click.argument("file", metavar="FILE")
@term_option
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="The tool's format. Default: what the file looks like.",
)
@click.option(
    "--convention", type=click.Choice(CONVENTIONS), help="How the file's numbers of layers are read."
)
@click.option(
    "--coefficient",
    type=read_weight,
    metavar="NUMBER",
    help="How much of it is added. Default: the file's, or 1.",
)
@click.option(
    "--layer", "layers", type=Whole(), multiple=True, help="Apply it after this layer alone. Can be repeated."
)
@click.option("--site", "sites", multiple=True, metavar="SITE", help="Apply it there alone. Can be repeated.")
@click.option("--positions", type=click.Choice(POSITIONS), help="Which tokens are steered. Default: all.")
@message_option
@json_option
@pass_app
def command(app: App, /, file: str, layers: tuple[int, ...], as_json: bool, **chosen: Any) -> None:
    """Import a steering vector from a file of llama.cpp, repeng, lm-eval-harness, persona_vectors, activation-steering
    or pv, as a steering term. It is applied at every site that the file has; with --layer or --site at these alone.

    The numbers of layers mean what the file's tool does with them; where tools differ, --convention chooses:
    docs/steering-formats.md. A file of a model with another number of layers, or another width, is refused. A .pt
    file is read without running code from it.

    \b
    pv steer import formal.gguf --as formal
    pv steer import formal.gguf --as formal --convention cvector-generator --layer 14
    pv steer import evil_response_avg_diff.pt --as evil --layer 19 --coefficient -1
    """
    made = app.repo().steer.import_file(app.file(file), layers=layers or None, **chosen)
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: Import) -> None:
    app.done(
        f"{short(made.commit)} {made.name} is steering vector {short(made.vector)}, on branch {made.branch}"
    )
    convention = f", convention {made.convention}" if made.convention else ""
    app.note(f"  read from {made.file} as {made.format}{convention}: directions at {site_words(made.sites)}")
    term = made.term
    app.note(
        f"  applied {number(term.coefficient)} × at {site_words(term.sites)}, {term.positions} positions"
    )
    for note in made.notes:
        app.note(f"note: {note}")
