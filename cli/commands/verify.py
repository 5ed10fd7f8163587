"""pv verify"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import dtype_option, json_option, rounding_option, threads_option
from pv.cli.render import counted
from pv.cli.say import echo
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.repo.verify import Verdict

__all__ = ["command"]

SHOWN = 20


@click.command("verify", short_help="Is this checkpoint that persona's build?")
@click.argument("checkpoint", metavar="DIR")
@click.argument("rev", default="HEAD")
@dtype_option("As it was given to `pv build`.")
@rounding_option("As it was given to `pv build`.")
@threads_option
@json_option
@pass_app
def command(
    app: App,
    checkpoint: str,
    rev: str,
    dtype: str | None,
    rounding: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Check that the checkpoint in DIR is, bit for bit, the build of a revision. Exit code 1 if it is not.

    Files and shards do not matter, tensors do. If the build was made here, what was recorded then is
    compared; otherwise every tensor is computed again. Nothing is written.

    \b
    pv verify ./persona
    pv verify ./downloaded v1
    """
    revision = app.repo().at(rev)
    with app.progress() as progress:
        verdict = revision.verify(
            app.file(checkpoint), dtype=dtype, rounding=rounding, threads=threads, progress=progress
        )
    if as_json:
        app.json(verdict)
    else:
        _say(app, verdict)
    if not verdict.same:
        raise click.exceptions.Exit(ExitCode.NO)


def _say(app: App, verdict: Verdict) -> None:
    for one in verdict.differing[:SHOWN]:
        echo(f"{one.name} {one.what}")
    if len(verdict.differing) > SHOWN:
        echo(f"and {len(verdict.differing) - SHOWN} more")
    echo(f"weights  {verdict.found}")
    if verdict.dtype:
        app.note(f"  all of them are {verdict.dtype}: was it built with --dtype {verdict.dtype}?")
    if verdict.side_files:
        app.note(f"  beside the weights, other than built: {', '.join(verdict.side_files)}")
    if verdict.same:
        how = "as recorded" if verdict.recorded else "computed again"
        app.done(f"the build of {short(verdict.commit)}, {how}: all {counted(verdict.tensors, 'tensor')}")
    else:
        differing = counted(len(verdict.differing), "tensor")
        verb = "differs" if len(verdict.differing) == 1 else "differ"
        app.note(f"not the build of {short(verdict.commit)}: {differing} {verb}")
