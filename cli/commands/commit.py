"""pv commit"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option, message_option, name_option, threads_option, weight_option
from pv.cli.render import counted, size

__all__ = ["command"]


@click.command("commit", short_help="Commit a fine-tuned checkpoint or an adapter as a behaviour.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@name_option
@weight_option
@message_option
@click.option(
    "--level",
    type=click.Choice(["default", "max"]),
    default="default",
    show_default=True,
    help="max: a tenth smaller, some twenty times slower.",
)
@threads_option
@json_option
@pass_app
def command(
    app: App,
    checkpoint: str,
    name: str,
    weight: float | None,
    message: str | None,
    level: str,
    threads: int,
    as_json: bool,
) -> None:
    """Keep a checkpoint that was fine-tuned from this base, bit for bit, as a behaviour.

    CHECKPOINT is a folder of safetensors (one file or shards), whatever trained it. What is kept is its
    difference to the base; frozen tensors cost nothing. The folder of a PEFT adapter is taken too: the
    factors of LoRA and rsLoRA as they are, what DoRA does as a difference. So is a Hub id, at its full commit.

    \b
    pv commit ./my-sft-run --as helpful -m "SFT on 500 rows"
    pv commit ./my-lora --as brief
    pv commit hf://user/some-lora@v1 --as theirs
    """
    with app.progress() as progress:
        made = app.repo().commit(
            checkpoint, name=name, weight=weight, level=level, seen_from=app.path,
            message=message, threads=threads, progress=progress,
        )  # fmt: skip
    for note in made.notes:
        app.note(f"  {note}")
    if as_json:
        app.json(made)
    elif made.put_back:
        app.done(f"put back: the pack of {name}, vector {short(made.vector)}; nothing else has changed")
    else:
        tensors = counted(made.tensors, "tensor")
        app.done(
            f"{short(made.commit)} {name} is vector {short(made.vector)}: {tensors}, {size(made.stored_bytes)}, "
            f"on branch {made.branch}"
        )
