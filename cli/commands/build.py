"""pv build"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import (
    dtype_option,
    json_option,
    ray_option,
    rounding_option,
    shard_option,
    share_option,
    threads_option,
)
from pv.cli.render import persona_line, size
from pv.cli.report import echo_sums, report_plan
from pv.cli.say import echo
from pv.cli.sharded import build_share, build_with_ray, check_sharding
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.merge.build import Built
    from pv.vecstore.repo.build import Build

__all__ = ["command"]


@click.command("build", short_help="Write the persona's checkpoint.")
@click.argument("rev", default="HEAD")
@click.option("-o", "--output", metavar="DIR", help="The folder to write to (required).")
@dtype_option("Output dtype, instead of the persona's setting.")
@rounding_option("Rounding, instead of the persona's setting.")
@shard_option
@share_option
@ray_option
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
    share: tuple[int, int] | None,
    address: str | None,
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
    pv build --shards 3/16 -o ./persona
    """
    if output is None:
        raise UsageError("no folder to build into: -o DIR is missing", hint=f"pv build {_meant(rev)}")
    check_sharding(share, address)
    revision, folder = app.repo().at(rev), app.file(output)
    written: dict[str, Any] = {"dtype": dtype, "rounding": rounding, "shard_bytes": shard_bytes}
    more: dict[str, Any] = {**written, "force": force, "threads": threads}
    if share is not None:
        build_share(app, revision, folder, share, more, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        report_plan(app, revision.plan_build(folder, **written), as_json=as_json)
        return
    with app.progress() as progress:
        if address is None:
            made = revision.build(folder, **more, progress=progress)
        else:
            made = build_with_ray(revision, folder, address, {**more, "progress": progress})
    if not made.recorded:
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    app.json(made) if as_json else _say(app, made)


def _meant(rev: str) -> str:
    """The command line that has the folder: a path was typed where a revision goes."""
    path = rev.startswith((".", "/", "~")) or rev.endswith("/")
    return f"-o {rev}" if path else "-o DIR" if rev == "HEAD" else f"{rev} -o DIR"


def _spared(built: Built) -> str:
    """What need not be computed."""
    ways = {"copied from an earlier build": built.copied, "kept from the interrupted build": built.resumed}
    return "".join(f", {count} {way}" for way, count in ways.items() if count)


def _say(app: App, made: Build) -> None:
    built = made.built
    if made.already:
        app.done(f"already built: {persona_line(made.persona)} is in {made.output} ({size(built.nbytes)})")
    else:
        app.done(
            f"built {persona_line(made.persona)} into {made.output} "
            f"({size(built.nbytes)}, {built.touched} of {built.tensors} tensors touched{_spared(built)})"
        )
    echo(f"build    {built.build}")
    echo_sums(built)
