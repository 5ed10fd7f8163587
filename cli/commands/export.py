"""pv export"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, shard_option, threads_option
from pv.cli.render import size
from pv.cli.report import echo_sums, report_plan
from pv.cli.say import echo
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.export import Export

__all__ = ["command"]


@click.command("export", short_help="Write the checkpoint that was committed as a behaviour.")
@click.argument("what", metavar="[REV:]NAME")
@click.option("-o", "--output", required=True, metavar="DIR", help="The folder to write to.")
@shard_option
@click.option("--force", is_flag=True, help="Replace a folder that pv built or exported.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    what: str,
    output: str,
    shard_bytes: int,
    force: bool,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Write a behaviour's checkpoint as it was committed, whatever the persona does with it.

    A captured checkpoint comes back bit for bit, in the dtypes it had, also one committed with --on; config and
    tokenizer are the base's. A behaviour that is not one captured checkpoint (trained, an adapter, compressed)
    is built alone at weight 1, as the persona's builds are written. The ✓ line, and `captured` in the JSON, say
    which of the two it was.

    \b
    pv export house-style -o ./house-style
    pv export v1:house-style -o ./old
    """
    rev, colon, name = what.rpartition(":")
    if not name or (colon and not rev):
        raise UsageError(f"{what!r} is not [REV:]NAME", hint="for example: pv export v1:concise -o ./concise")
    revision, folder = app.repo().at(rev or "HEAD"), app.file(output)
    if dry_run:
        plan = revision.plan_export(name, folder, shard_bytes=shard_bytes, force=force)
        report_plan(app, plan, as_json=as_json)
        return
    with app.progress() as progress:
        made = revision.export(
            name, folder, shard_bytes=shard_bytes, force=force, threads=threads, progress=progress
        )
    if not made.recorded:
        app.note("  the registry cannot be written to: the build's ids are not recorded there")
    app.json(made) if as_json else _say(app, made)


def _say(app: App, made: Export) -> None:
    written = made.written
    figures = f"({size(written.nbytes)}, {written.touched} of {written.tensors} tensors differ from the base)"
    if made.captured:
        app.done(f"exported {made.name} into {made.output}: the captured checkpoint, bit for bit {figures}")
    else:
        what = made.encodings[0] if len(made.encodings) == 1 else f"{len(made.encodings)} vectors"
        app.done(
            f"exported {made.name} into {made.output}: not one captured checkpoint ({what}), "
            f"so built alone at weight 1 {figures}"
        )
    if made.build is not None:
        echo(f"build    {made.build}")
    echo_sums(written)
