"""pv steer export"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.commands.steering.import_ import CONVENTIONS, FORMATS
from pv.cli.options import json_option, read_weight
from pv.cli.render import number
from pv.registry.words import site_words

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.export import ExportedTerm

__all__ = ["command"]


@click.command("export", short_help="Write a steering term as another tool's file.")
@click.argument("what", metavar="[REV:]TERM")
@click.option("-o", "--output", required=True, metavar="FILE", help="The file to write.")
@click.option(
    "--format",
    type=click.Choice(FORMATS),
    help="The tool's format. Default: by the file's ending.",
)
@click.option("--convention", type=click.Choice(CONVENTIONS), help="What the file's numbers of layers mean.")
@click.option(
    "--coefficient", type=read_weight, metavar="NUMBER", help="What it steers by. Default: the term's own."
)
@click.option("--unit", is_flag=True, help="Write directions of length 1, whatever the coefficient is.")
@click.option(
    "--site", "sites", multiple=True, metavar="SITE", help="Write this site alone. Can be repeated."
)
@click.option(
    "--all-sites", is_flag=True, help="Write all sites of its vector. Default: where it is applied."
)
@click.option("--force", is_flag=True, help="Replace a file that is there.")
@json_option
@pass_app
def command(
    app: App, /, what: str, output: str, sites: tuple[str, ...], all_sites: bool, as_json: bool, **chosen: Any
) -> None:
    """Write a steering term as a file that llama.cpp, repeng, lm-eval-harness, persona_vectors or activation-steering
    reads. Where the format has no coefficient, the directions are multiplied by the term's.

    A term that steers some positions, or some prompts, is refused: no format has room for that. safetensors has room
    for every site, the others for what is added after modules or blocks: docs/steering-formats.md.

    \b
    pv steer export formal -o formal.gguf
    llama-cli -m model.gguf --control-vector formal.gguf
    pv steer export v1:formal -o formal.pt --format lm-eval
    pv steer export formal -o formal.safetensors --all-sites
    """
    if sites and all_sites:
        raise click.UsageError("--site and --all-sites exclude each other")
    revision, _, name = what.rpartition(":")
    made = app.repo().steer.export(
        name,
        app.file(output),
        revision=revision or "HEAD",
        sites="all" if all_sites else sites or None,
        **chosen,
    )
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: ExportedTerm) -> None:
    convention = f", convention {made.convention}" if made.convention else ""
    app.done(f"{made.file}  {made.name} as {made.format}{convention}")
    by, where = number(made.coefficient), site_words(made.sites)
    how = "directions of length 1" if made.unit else f"{by} × vector {made.vector[:12]}"
    room = "the coefficient is in the file" if made.kept else f"the directions are multiplied by {by}"
    app.note(f"  {how} at {where}" + (f"; {room}" if by != "1" else ""))
    for note in made.notes:
        app.note(f"note: {note}")
