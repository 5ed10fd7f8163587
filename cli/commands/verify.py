"""pv verify"""

from __future__ import annotations

from dataclasses import replace

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import counted
from pv.cli.say import echo

__all__ = ["command"]

SHOWN = 20


@click.command("verify", short_help="Is this checkpoint that persona's build?")
@click.argument("checkpoint", metavar="DIR")
@click.argument("rev", default="HEAD")
@click.option(
    "--dtype", type=click.Choice(["base", "bf16", "fp16", "fp32"]), help="As it was given to `pv build`."
)
@click.option(
    "--rounding", type=click.Choice(["stochastic", "nearest"]), help="As it was given to `pv build`."
)
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
    from pv.cli.stages import stages
    from pv.vecstore.repo.verify import verify

    registry = app.registry()
    commit = registry.resolve(rev)
    persona = registry.persona(commit)
    output = persona.output
    output = replace(output, dtype=dtype) if dtype else output
    output = replace(output, rounding=rounding) if rounding else output
    labels = {"hash": ("hashing the checkpoint", "bytes"), "build": ("computing the build", "bytes")}
    with stages(app, labels) as progress:
        verdict = verify(
            registry,
            commit,
            replace(persona, output=output),
            app.file(checkpoint),
            threads=threads,
            hashing=lambda done, total: progress("hash", done, total),
            building=lambda done, total: progress("build", done, total),
        )
    if as_json:
        app.json({"commit": commit, **verdict.to_json()})
    else:
        for name, what in verdict.differing[:SHOWN]:
            echo(f"{name} {what}")
        if len(verdict.differing) > SHOWN:
            echo(f"and {len(verdict.differing) - SHOWN} more")
        echo(f"weights  {verdict.found}")
        if verdict.dtype:
            app.note(f"  all of them are {verdict.dtype}: was it built with --dtype {verdict.dtype}?")
        if verdict.side_files:
            app.note(f"  beside the weights, other than built: {', '.join(verdict.side_files)}")
        if verdict.same:
            how = "as recorded" if verdict.recorded else "computed again"
            app.done(f"the build of {short(commit)}, {how}: all {counted(verdict.tensors, 'tensor')}")
        else:
            differing = counted(len(verdict.differing), "tensor")
            verb = "differs" if len(verdict.differing) == 1 else "differ"
            app.note(f"not the build of {short(commit)}: {differing} {verb}")
    if not verdict.same:
        raise click.exceptions.Exit(1)
