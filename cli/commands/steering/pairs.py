"""pv steer pairs"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Whole, json_option, model_threads_option

__all__ = ["command"]


@click.command("pairs", short_help="Write contrast rows of a trait, in the base's own words.")
@click.argument("trait", metavar="TRAIT")
@click.option("-o", "--output", required=True, metavar="FILE", help="Where to write the rows: NAME.jsonl.")
@click.option("--max-tokens", type=Whole(1), default=64, show_default=True, help="Longest answer, in tokens.")
@model_threads_option
@json_option
@pass_app
def command(app: App, trait: str, output: str, max_tokens: int, threads: int, as_json: bool) -> None:
    """Write rows of prompt, chosen and rejected for a trait: the base's answers when it is told to have the trait,
    and when it is told not to. Every other question goes into NAME.heldout.jsonl.

    TRAIT is a JSON file: {"instruction": [{"pos": "Be formal.", "neg": "Be casual."}], "questions": ["..."]}.

    \b
    pv steer pairs formal.json -o formal.jsonl
    pv steer extract formal.jsonl --as formal
    """
    with app.progress() as progress:
        made = app.repo().steer.pairs(
            app.file(trait), max_tokens=max_tokens, threads=threads, progress=progress
        )
    files = made.write(app.file(output))
    if as_json:
        app.json({**made.to_json(), "files": [str(file) for file in files]})
        return
    app.done(f"{len(made.rows)} rows in {files[0].name}, {len(made.held_out)} held out in {files[1].name}")
    if made.left_out:
        app.note(
            f"note: {made.left_out} questions were answered alike, or without a whole sentence, and left out"
        )
