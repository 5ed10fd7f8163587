"""pv commit"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import json_option, message_option, name_option, threads_option, weight_option
from pv.cli.render import counted, size

if TYPE_CHECKING:
    from pv.vecstore.repo.commit import Capture

__all__ = ["command"]


@click.command("commit", short_help="Commit a fine-tuned checkpoint or an adapter as a behaviour.")
@click.argument("checkpoint", metavar="CHECKPOINT")
@name_option
@click.option(
    "--on", metavar="REV", help="It was fine-tuned from the build of REV: subtract what that holds."
)
@weight_option
@message_option
@click.option(
    "--level",
    type=click.Choice(["default", "max"]),
    default="default",
    show_default=True,
    help="Compression: max is a tenth smaller and some twenty times slower.",
)
@click.option(
    "--force", is_flag=True, help="Commit it even if it looks like a build, or names another base model."
)
@threads_option
@json_option
@pass_app
def command(
    app: App,
    checkpoint: str,
    name: str,
    on: str | None,
    weight: float | None,
    message: str | None,
    level: str,
    force: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Keep a checkpoint that was fine-tuned from this base, bit for bit, as a behaviour.

    CHECKPOINT is a folder of safetensors (one file or shards), whatever trained it. What is kept is its
    difference from the base; frozen tensors cost nothing. The folder of a PEFT adapter is taken too: the
    factors of LoRA and rsLoRA as they are, what DoRA does as a difference. So is a Hub id, at its full commit.
    What was fine-tuned from a build needs --on: REV and the new behaviour together give the checkpoint.

    \b
    pv commit ./my-sft-run --as helpful -m "SFT on 500 rows"
    pv commit ./my-lora --as brief
    pv commit ./tuned-further --on HEAD --as polite
    pv commit hf://user/some-lora@v1 --as theirs
    pv commit s3://bucket/runs/42 --as helpful
    """
    with app.progress() as progress:
        made = app.repo().commit(
            checkpoint, name=name, on=on, weight=weight, level=level, force=force, seen_from=app.path,
            message=message, threads=threads, progress=progress,
        )  # fmt: skip
    for note in made.notes:
        app.note(f"  {note}")
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: Capture) -> None:
    if made.put_back:
        app.done(f"put back: the pack of {made.name}, vector {short(made.vector)}; nothing else has changed")
        return
    kept = ", ".join(f"{count} as {how}" for how, count in made.parts.items() if how != "whole")
    tensors = counted(made.tensors, "tensor") + (f" ({kept})" if kept else "")
    less = f", less {' and '.join(made.subtracted)} of {short(made.on.commit)}" if made.on else ""
    app.done(
        f"{short(made.commit)} {made.name} is vector {short(made.vector)}{less}: {tensors}, "
        f"{size(made.stored_bytes)}, on branch {made.branch}"
    )
