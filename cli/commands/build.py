"""pv build"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, json_option, pass_app, threads_option
from pv.cli.render import persona_line, size
from pv.cli.say import echo
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.merge.build import Shard

__all__ = ["command"]


@click.command("build", short_help="Write the persona's checkpoint.")
@click.argument("rev", default="HEAD")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to make.")
@click.option(
    "--dtype", type=click.Choice(["base", "bf16", "fp16", "fp32"]), help="Instead of the persona's own."
)
@click.option(
    "--rounding", type=click.Choice(["stochastic", "nearest"]), help="Instead of the persona's own."
)
@click.option(
    "--shard-size",
    default=5000.0,
    type=click.FloatRange(0, min_open=True),
    show_default=True,
    help="Largest weight file, in MB.",
)
@click.option("--force", is_flag=True, help="Replace a folder that pv built.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    rev: str,
    output: str,
    dtype: str | None,
    rounding: str | None,
    shard_size: float,
    force: bool,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Build a revision into a checkpoint folder that transformers, vLLM and the rest load as it is.

    The same persona gives the same bytes, always: the weights' id printed here is what to compare.

    \b
    pv build -o ./persona
    pv build v1 -o ./v1-fp32 --dtype fp32
    """
    from pv.vecstore.merge.build import build, plan
    from pv.vecstore.repo.opening import opened, record_build

    registry = app.registry()
    commit = registry.resolve(rev)
    persona = registry.persona(commit)
    output_options = persona.output
    if dtype:
        output_options = replace(output_options, dtype=dtype)
    if rounding:
        output_options = replace(output_options, rounding=rounding)
    persona = replace(persona, output=output_options)
    folder = _free(app.file(output))
    if not math.isfinite(shard_size):
        raise UsageError("--shard-size is a number of megabytes", hint="without it, files hold up to 5000 MB")
    shard_bytes = max(1, int(shard_size * 1e6))
    with opened(registry, commit, [persona]) as at:
        if dry_run:
            _describe(app, plan(persona, at.base, shard_bytes=shard_bytes), folder, as_json)
            return
        with app.progress("building") as update:
            made = build(
                persona,
                at.base,
                at.vectors,
                folder,
                side_files=registry.base_files(commit),
                shard_bytes=shard_bytes,
                threads=threads,
                force=force,
                progress=update,
            )
    if not record_build(registry, made):
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    if as_json:
        app.json(
            {
                "output": str(folder),
                "commit": commit,
                "build": made.build,
                "weights": made.weights,
                "files": dict(made.files),
                "tensors": made.tensors,
                "touched": made.touched,
                "bytes": made.nbytes,
            }
        )
        return
    app.done(
        f"built {persona_line(persona)} into {folder} "
        f"({size(made.nbytes)}, {made.touched} of {made.tensors} tensors touched)"
    )
    echo(f"build    {made.build}")
    echo(f"weights  {made.weights}")
    for name, digest in made.files.items():
        echo(f"sha256   {digest}  {name}")


def _free(folder: Path) -> Path:
    """`folder`, if it can be made: nothing above it is a file, or a link to itself. Raises UsageError."""
    try:
        folder.resolve()
    except (OSError, RuntimeError):  # which of the two depends on Python's version
        raise UsageError(f"{folder}: its links go round in a circle", hint="name another with -o") from None
    for above in folder.parents:
        if above.exists() and not above.is_dir():
            raise UsageError(
                f"{above} is a file, so nothing can be in it", hint="name another folder with -o"
            )
    return folder


def _describe(app: App, shards: Sequence[Shard], folder: Path, as_json: bool) -> None:
    rows = [(s.file, len(s.tensors), sum(n for _, _, n in s.tensors.values())) for s in shards]
    if as_json:
        app.json({"output": str(folder), "files": {name: nbytes for name, _, nbytes in rows}})
        return
    for name, tensors, nbytes in rows:
        echo(f"{folder / name}  {tensors} tensors  {size(nbytes)}")
