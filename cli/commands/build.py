"""pv build"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import dtype_option, json_option, rounding_option, shard_option, threads_option
from pv.cli.render import persona_line, size
from pv.cli.report import echo_sums, report_plan
from pv.cli.say import echo
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.build import Build

__all__ = ["command"]


@click.command("build", short_help="Write the persona's checkpoint.")
@click.argument("rev", default="HEAD")
@click.option("-o", "--output", metavar="DIR", help="The folder to write to (required).")
@dtype_option("Output dtype, instead of the persona's setting.")
@rounding_option("Rounding, instead of the persona's setting.")
@shard_option
@click.option("--force", is_flag=True, help="Replace a folder that pv built.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    rev: str,
    output: str | None,
    dtype: str | None,
    rounding: str | None,
    shard_bytes: int,
    force: bool,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Build a revision into a checkpoint folder that transformers, vLLM and others load as it is.

    The same persona always gives the same bytes: compare builds by the weights' id that is printed.

    \b
    pv build -o ./persona
    pv build v1 -o ./v1-fp32 --dtype fp32
    """
    if output is None:
        raise UsageError("no folder to build into: -o DIR is missing", hint=f"pv build {_meant(rev)}")
    revision, folder = app.repo().at(rev), app.file(output)
    written: dict[str, Any] = {"dtype": dtype, "rounding": rounding, "shard_bytes": shard_bytes}
    if dry_run:
        plan = revision.plan_build(folder, **written, force=force)
        report_plan(app, plan, as_json=as_json)
        return
    with app.progress() as progress:
        made = revision.build(folder, **written, force=force, threads=threads, progress=progress)
    if not made.recorded:
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    app.json(made) if as_json else _say(app, made)


def _meant(rev: str) -> str:
    """The command line that has the folder: a path was typed where a revision goes."""
    path = rev.startswith((".", "/", "~")) or rev.endswith("/")
    return f"-o {rev}" if path else "-o DIR" if rev == "HEAD" else f"{rev} -o DIR"


def _say(app: App, made: Build) -> None:
    built = made.built
    app.done(
        f"built {persona_line(made.persona)} into {made.output} "
        f"({size(built.nbytes)}, {built.touched} of {built.tensors} tensors touched)"
    )
    echo(f"build    {built.build}")
    echo_sums(built)
