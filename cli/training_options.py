"""The options of `pv train` that say how: what is tuned, where it is computed, when it stops, what it reports."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from pv.cli.options import Number, Whole
from pv.vecstore.train.options import SAVE_EVERY_S, TrainOptions

__all__ = ["training_options"]

F = TypeVar("F", bound=Callable[..., Any])
OPTIONS = TrainOptions()


def _default(name: str) -> dict[str, Any]:
    return {"default": getattr(OPTIONS, name), "show_default": True}


DECORATORS = (
    click.option("--lr", type=Number(0, above=True), **_default("lr"), help="Learning rate."),
    click.option(
        "--epochs",
        type=Whole(1),
        help="Epochs: passes over the rows. Default: as many as make about 18 steps, but 2 to 6; --learn all: 2.",
    ),
    click.option("--batch", type=Whole(1), **_default("batch"), help="Batch size: rows per step."),
    click.option(
        "--on",
        metavar="REV",
        help="Train from the build of a revision: the vector is the difference from it, and refines it.",
    ),
    click.option(
        "--adapter",
        metavar="KIND:RANK",
        help="Train an adapter, not all weights: lora:16, rslora:16 or dora:16. Kept as low-rank factors; a DoRA as "
        "its difference from the base, which takes more space.",
    ),
    click.option(
        "--max-steps",
        type=Whole(1),
        help="Stop after this many steps. Default: at the end of the last epoch.",
    ),
    click.option(
        "--optimizer", type=click.Choice(["apollo", "adamw"]), **_default("optimizer"), help="Optimizer."
    ),
    click.option(
        "--rank", type=Whole(1), **_default("rank"), help="Rank of the projected gradients, for apollo."
    ),
    click.option(
        "--preference",
        type=Number(0),
        **_default("preference"),
        help="P, the weight of the preference loss beside the SFT loss on chosen; 0: SFT only.",
    ),
    click.option(
        "--learn",
        type=click.Choice(["difference", "all"]),
        **_default("learn"),
        help="What of chosen is learnt: where it differs from rejected, or all of it.",
    ),
    click.option(
        "--hold",
        type=Number(0),
        help="H, the weight that holds what chosen and rejected share to the base.  [default: 10; 0 with "
        "--learn all]",
    ),
    click.option(
        "--general",
        "general_set",
        metavar="FILE|none",
        help="Rows whose answers are held to the base beside the behaviour; 'none': no such rows.  [default: pv's own; "
        "none with --learn all]",
    ),
    click.option(
        "--general-weight",
        "general",
        type=Number(0),
        help="G, the weight of that.  [default: 10; 0 with --learn all and no --general FILE]",
    ),
    click.option(
        "--general-rows", type=Whole(1), **_default("general_rows"), help="How many of them join each step."
    ),
    click.option("--train-embeddings", is_flag=True, help="Train embeddings and head too."),
    click.option(
        "--all-turns", is_flag=True, help="Train on every answer of a conversation, not on the last alone."
    ),
    click.option("--full-context", is_flag=True, help="Also backpropagate through prompt positions."),
    click.option(
        "--encoding",
        type=click.Choice(["int8", "float"]),
        default="int8",
        show_default=True,
        help="How the vector is kept.",
    ),
    click.option(
        "--replies",
        type=Whole(0),
        default=0,
        show_default=True,
        metavar="N",
        help="Measure replies too, to the first N held-out prompts: takes long.",
    ),
    click.option("--no-data", is_flag=True, help="Do not keep the rows in the registry."),
    click.option(
        "--seed", type=Whole(), **_default("seed"), help="Seed of the rows' order and of projections."
    ),
    click.option(
        "--resume", is_flag=True, help="Go on with the training that was stopped: same command, same bits."
    ),
    click.option(
        "--save-every",
        type=Number(0),
        default=SAVE_EVERY_S,
        show_default=True,
        metavar="SECONDS",
        help="Save the unfinished training this often; 0: after every step.",
    ),
    click.option(
        "--target-effect",
        type=Number(0, above=True),
        metavar="NATS",
        help="Stop once the effect on the held-out rows is this large.",
    ),
    click.option(
        "--patience",
        type=Whole(1),
        metavar="CHECKS",
        help="Stop once so many checks in a row brought no larger effect on the held-out rows.",
    ),
    click.option(
        "--check-every",
        type=Whole(1),
        default=1,
        show_default=True,
        metavar="STEPS",
        help="How often --target-effect and --patience measure.",
    ),
    click.option(
        "--micro-tokens",
        type=Whole(1),
        **_default("micro_tokens"),
        help="Tokens that run at a time; a batch of more is accumulated. Bounds memory; the step means the same.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        **_default("device"),
        help="Where to compute; auto: the best that is there.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["auto", "fp32", "bf16"]),
        **_default("dtype"),
        help="Of matrix products; auto: bf16 where the processor multiplies in it. Weights and moments stay in fp32.",
    ),
    click.option(
        "--gradient-checkpointing", is_flag=True, help="Compute activations again instead of keeping them."
    ),
    click.option("--metrics", metavar="FILE", help="Write a JSON line of metrics for each step."),
    click.option(
        "--report-to",
        type=click.Choice(["tensorboard", "wandb", "trackio"]),
        multiple=True,
        help="Report the same to a tracker that is installed.",
    ),
)


def training_options(command: F) -> F:
    for option in reversed(DECORATORS):
        command = option(command)
    return command
