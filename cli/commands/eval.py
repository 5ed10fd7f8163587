"""pv eval"""

from __future__ import annotations

from dataclasses import replace

import click

from pv.cli.app import App, json_option, pass_app, short, threads_option
from pv.cli.render import interval, persona_line, table
from pv.cli.say import echo

__all__ = ["command"]


@click.command("eval", short_help="Measure a behaviour on held-out rows.")
@click.argument("what", nargs=-1, required=True, metavar="[REV] DATA.jsonl")
@click.option(
    "--dtype", type=click.Choice(["base", "bf16", "fp16", "fp32"]), help="Of the build that is measured."
)
@threads_option
@json_option
@pass_app
def command(app: App, what: tuple[str, ...], dtype: str | None, threads: int, as_json: bool) -> None:
    """Measure a revision on held-out rows, with its base as the control.

    Margin: log-probability of the chosen answer minus that of the rejected one, in nats. Effect: margin
    after minus margin of the base, averaged over rows; 95 % intervals from a paired bootstrap over rows.
    Results are kept per build: asking again costs nothing.

    \b
    pv eval examples/behaviours/listening.heldout.jsonl
    pv eval v1 examples/behaviours/listening.heldout.jsonl --json
    """
    from pv.registry.errors import UsageError
    from pv.vecstore.data.rows import read_rows
    from pv.vecstore.repo.score import score

    if len(what) > 2:
        raise UsageError("eval takes a revision and a file of rows", hint="pv eval [REV] DATA.jsonl")
    rev, data = ("HEAD", what[0]) if len(what) == 1 else what
    registry = app.registry()
    commit = registry.resolve(rev)
    path = app.file(data)
    rows = read_rows(path)
    persona = registry.persona(commit)
    if dtype:
        persona = replace(persona, output=replace(persona.output, dtype=dtype))
    with app.progress(f"measuring on {path.name}", "answers") as update:
        found = score(registry, commit, persona, rows, path.name, threads=threads, progress=update)
    if as_json:
        app.json({"commit": commit, "build": found.build, **found.to_json()})
        return
    echo(f"{rev} ({short(commit)})  {persona_line(persona)}")
    cells = [
        [label, interval(i.mean, i.low, i.high), str(i.n)]
        for label, i in (
            ("margin of the base", found.base_margin),
            ("margin", found.margin),
            ("effect", found.effect),
            ("effect per token", found.effect_per_token),
        )
    ]
    echo(table([path.name, "nats, 95 % interval", "rows"], cells))
    echo(f"verdict: {found.effect.verdict}")
