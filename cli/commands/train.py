"""pv train"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import (
    json_option,
    message_option,
    name_option,
    threads_choice,
    weight_option,
)
from pv.cli.render import size
from pv.cli.training_options import training_options
from pv.vecstore.publish.lineage import losses, measured, ran, taught
from pv.vecstore.publish.words import VERDICTS, at_weight_1
from pv.vecstore.train.options import TrainOptions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pv.vecstore.repo.repo import Repo
    from pv.vecstore.repo.train import Training

__all__ = ["command"]

OPTIONS = TrainOptions()
ALWAYS = f"""
\b
The loss of a step is SFT + P * preference + H * held + G * general:
  SFT         -log p(chosen | prompt) of the tokens of chosen that differ from
              rejected and of the token after them, the first times the row's
              number of such tokens; divided by the step's number of them
  preference  log(1 + exp(r - c)), mean over the step's rows; c and r: log p
              of the first tokens that differ; 0 without rejected
  held        KL(base || model), mean over the tokens of chosen that are
              the same in rejected
  general     KL(base || model), mean over tokens of ordinary answers
With --learn all, and of answers that share less than a quarter of the shorter
one, SFT is over all tokens of chosen, each once, and c and r are the mean log p
per token of both. Where rejected ends its turn and chosen goes on, the first
token has a KL to the base's distribution with the end moved to it instead, and
there is no preference.

Learning rate: linear warm-up over the first {OPTIONS.warmup:.0%} of the steps, then {OPTIONS.schedule} to 0. A step's
gradient is scaled down to a norm of at most {OPTIONS.clip:g}; weight decay is {OPTIONS.weight_decay:g}. From Python,
these are options too.
"""


@click.command("train", short_help="Train a behaviour from rows and commit it.", epilog=ALWAYS)
@click.argument("data", metavar="ROWS")
@name_option
@weight_option
@click.option(
    "--held-out",
    metavar="FILE",
    help="Rows to measure on; 'none' skips. Default for rows.jsonl: rows.heldout.jsonl, if it exists.",
)
@training_options
@message_option
@threads_choice(
    "Number of threads. Training again with the same number on the same machine gives the same bits."
)
@json_option
@pass_app
def command(
    app: App,
    /,
    data: str,
    held_out: str | None,
    full_context: bool,
    no_data: bool,
    metrics: str | None,
    as_json: bool,
    **chosen: Any,
) -> None:
    """Train a behaviour on the persona's base, from rows of prompt, chosen and rejected answers.

    Full-parameter fine-tuning of the base in fp32, by default with the optimizer Apollo. What it learned is kept as
    a vector of its own and added to the persona; a name that exists gets a new version, trained from the base.
    Rows are JSON lines, a JSON array, csv or parquet, or `-` for stdin: {"prompt": "...", "chosen": "...", "rejected":
    "..."}, where rejected may be left out, or another format of docs/rows.md. Held-out rows give its effect: how much
    the margin of chosen over rejected grew against the base.
    Ctrl-C saves what was trained so far, and the same command with --resume goes on (not under torchrun).

    \b
    pv train examples/behaviours/listening.jsonl --as listening
    pv train rows.jsonl --as brief --epochs 2 --lr 5e-5 --held-out other-rows.jsonl
    torchrun --nproc-per-node 2 -m pv train rows.jsonl --as brief
    """
    if metrics is not None:
        chosen["metrics"] = app.file(metrics)
    given = {key: value for key, value in chosen.items() if value is not None} | {"together": app.together}
    repo = app.repo()
    if app.follows:
        repo.train(data, name="", together=True)
        return
    rows = app.rows(data, repo)
    if "general_set" in given:
        given |= _general(app, given.pop("general_set"), repo)
    if held_out is not None:
        given["held_out"] = None if held_out == "none" else app.rows(held_out, repo)
    with app.progress() as progress:
        made = repo.train(
            rows, keep_rows=not no_data, frozen_context=not full_context, progress=progress, **given
        )
    app.json(made) if as_json else _say(app, made, rows.notes)


def _general(app: App, named: str, repo: Repo) -> dict[str, Any]:
    return {"general": 0.0} if named == "none" else {"general_set": app.rows(named, repo)}


def _say(app: App, made: Training, said: Sequence[str]) -> None:
    origin = made.provenance
    app.note(f"  {made.name} {taught(origin)}: {ran(origin)}")
    seconds = f"{made.tokens / max(made.seconds, 1e-9):.0f} tokens/s, {made.seconds:.0f} s"
    app.note(f"  {losses(origin)} (of that step's batch, before its update); {seconds}")
    app.done(
        f"{short(made.commit)} {made.name} is vector {short(made.vector)}, {size(made.stored_bytes)}, "
        f"on branch {made.branch}"
    )
    for note in made.notes:
        if note not in said:
            app.note(f"  {note}")
    if made.held_out is not None:
        found, *notes = measured(origin)
        app.note(f"  {at_weight_1(found)}: {VERDICTS[made.held_out.effect.verdict][0]}")
        for note in notes:
            app.note(f"  {note}")
