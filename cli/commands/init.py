"""pv init"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import Whole, dtype_option, json_option, rounding_option, threads_option
from pv.cli.render import counted, size
from pv.cli.say import plain

__all__ = ["command"]


@click.command("init", short_help="Create a registry on a base checkpoint.")
@click.option(
    "--base", required=True, metavar="DIR_OR_HUB_ID", help="A checkpoint folder, or user/name[@revision]."
)
@click.option(
    "--reference", is_flag=True, help="Do not copy a local base into the registry; record where it is."
)
@dtype_option("Dtype of the builds.", default="base", show_default=True)
@rounding_option("How builds round to half precision.", default="stochastic", show_default=True)
@click.option("--seed", type=Whole(0, (1 << 53) - 1), default=0, help="Seed of the rounding.")
@threads_option
@json_option
@pass_app
def command(app: App, /, base: str, reference: bool, threads: int, as_json: bool, **written: Any) -> None:
    """Create a registry in this folder, on a base checkpoint.

    The base is hashed tensor by tensor: every vector is tied to exactly these bytes. A base that exists
    only as a folder is copied into the registry (compressed), so that it cannot get lost; --reference
    leaves it where it is. A base on a Hub is recorded with its full commit; a folder of that name takes precedence.

    \b
    pv init --base ./SmolLM2-135M-Instruct
    pv init --base HuggingFaceTB/SmolLM2-135M-Instruct
    pv init --base hf://HuggingFaceTB/SmolLM2-135M-Instruct@main
    """
    from pv.registry.persona import Output
    from pv.vecstore.repo.init import init

    with app.progress() as progress:
        made = init(
            app.path, base, reference=reference, output=Output(**written), seen_from=app.path,
            command=app.line.text, threads=threads, progress=progress,
        )  # fmt: skip
    if as_json:
        app.json(made)
        return
    tensors = counted(len(made.manifest.tensors), "tensor")
    app.done(f"a registry in {made.registry} on base {plain(made.words)}, {tensors}")
    if made.stored_bytes is not None:
        app.note(
            f"  a copy of the base is in it ({size(made.stored_bytes)}); --reference only records where it is"
        )
    for note in made.notes:
        app.note(f"  {note}")
    app.note("  next: pv train ROWS.jsonl --as NAME")
