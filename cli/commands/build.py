"""pv build"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pv.cli.app import App, pass_app
from pv.cli.folder_merge import folder_merge
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
    from pathlib import Path

    from pv.vecstore.merge.build import Built
    from pv.vecstore.repo.build import Build
    from pv.vecstore.repo.revision import Revision

__all__ = ["command"]


@click.command("build", short_help="Write the persona's checkpoint.")
@click.argument("rev", default="HEAD")
@click.option("-o", "--output", metavar="DIR", help="The folder to write to (required).")
@click.option(
    "--from-mergekit",
    "document",
    metavar="FILE",
    help="Merge the checkpoint folders that mergekit's YAML names, instead of a revision; no registry is needed.",
)
@click.option(
    "--hash", "hashed", is_flag=True, help="With --from-mergekit: note the SHA-256 of the models' files."
)
@dtype_option("Output dtype, instead of the persona's setting.")
@rounding_option("Rounding, instead of the persona's setting.")
@shard_option
@share_option
@ray_option
@click.option(
    "--no-bake", is_flag=True, help="List every steering term beside the weights, and bake none into them."
)
@click.option("--force", is_flag=True, help="Replace a folder that pv built.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    /,
    rev: str,
    output: str | None,
    document: str | None,
    hashed: bool,
    share: tuple[int, int] | None,
    address: str | None,
    no_bake: bool,
    dry_run: bool,
    force: bool,
    threads: int,
    as_json: bool,
    **written: Any,
) -> None:
    """Build a revision into a checkpoint folder that transformers, vLLM and others load as it is.

    The same persona always gives the same bytes: compare builds by the weights' id that is printed. Steering
    terms are baked in as biases where that is exact, else listed in steering.json (docs/builds.md). With
    --from-mergekit, folders are merged as docs/mergekit.md says, rounded to nearest unless told otherwise.

    \b
    pv build -o ./persona
    pv build v1 -o ./v1-fp32 --dtype fp32
    pv build --shards 3/16 -o ./persona
    pv build --from-mergekit ties.yml -o ./merged
    """
    if output is None:
        raise UsageError("no folder to build into: -o DIR is missing", hint=_meant(rev, document))
    check_sharding(share, address, document)
    _check_source(document, hashed=hashed, no_bake=no_bake)
    more: dict[str, Any] = {**written, "force": force, "threads": threads}
    if document is not None:
        folder_merge(app, document, rev, output, **more, hashed=hashed, dry_run=dry_run, as_json=as_json)
        return
    more["bake"] = written["bake"] = not no_bake
    folder, revision = app.file(output), app.repo().at(rev)
    if share is not None:
        build_share(app, revision, folder, share, more, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        report_plan(app, revision.plan_build(folder, **written, force=force), as_json=as_json)
        return
    _say(app, _built(app, revision, folder, address, more), as_json=as_json)


def _built(app: App, revision: Revision, folder: Path, address: str | None, options: dict[str, Any]) -> Build:
    with app.progress() as progress:
        if address is None:
            made = revision.build(folder, **options, progress=progress)
        else:
            made = build_with_ray(revision, folder, address, {**options, "progress": progress})
    if not made.recorded:
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    return made


def _check_source(document: str | None, *, hashed: bool, no_bake: bool) -> None:
    """Options that are for the other source. Raises UsageError."""
    if hashed and document is None:
        raise UsageError(
            "--hash goes with --from-mergekit", hint="leave it out: a build's inputs have ids anyway"
        )
    if no_bake and document is not None:
        raise UsageError(
            "--no-bake is about a persona's steering, and folders have none", hint="leave it out"
        )


def _meant(rev: str, document: str | None) -> str:
    """The command line that has the folder: a path was typed where a revision goes."""
    if document is not None:
        return f"pv build --from-mergekit {document} -o DIR"
    path = rev.startswith((".", "/", "~")) or rev.endswith("/")
    return f"pv build -o {rev}" if path else "pv build -o DIR" if rev == "HEAD" else f"pv build {rev} -o DIR"


def _spared(built: Built) -> str:
    """What need not be computed."""
    ways = {"copied from an earlier build": built.copied, "kept from the interrupted build": built.resumed}
    return "".join(f", {count} {way}" for way, count in ways.items() if count)


def _say(app: App, made: Build, *, as_json: bool) -> None:
    built = made.built
    if as_json:
        app.json(made)
        return
    if made.already:
        app.done(f"already built: {persona_line(made.persona)} is in {made.output} ({size(built.nbytes)})")
    else:
        app.done(
            f"built {persona_line(made.persona)} into {made.output} "
            f"({size(built.nbytes)}, {built.touched} of {built.tensors} tensors touched{_spared(built)})"
        )
    for note in made.notes:
        app.note(f"note: {note}")
    echo(f"build    {built.build}")
    echo_sums(built)
