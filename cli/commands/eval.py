"""pv eval"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import dtype_option, json_option, threads_option
from pv.cli.render import interval, persona_line, table
from pv.cli.say import echo, plain
from pv.registry.errors import UsageError
from pv.vecstore.publish.words import VERDICTS, caveats

if TYPE_CHECKING:
    from pv.vecstore.repo.score import Score

__all__ = ["command"]


@click.command("eval", short_help="Measure a behaviour on held-out rows.")
@click.argument("what", nargs=-1, required=True, metavar="[REV] DATA.jsonl")
@dtype_option("Of the build that is measured.")
@threads_option
@json_option
@pass_app
def command(app: App, what: tuple[str, ...], dtype: str | None, threads: int, as_json: bool) -> None:
    """Measure a revision on held-out rows, with its base as the control.

    Margin: log-probability of the chosen answer minus that of the rejected one, in nats. Effect: margin
    after minus margin of the base, averaged over rows; 95 % intervals from a paired bootstrap over rows.
    Rows that a behaviour was trained on are counted, if the registry keeps its training rows. Results are kept
    per build: asking again costs nothing.

    \b
    pv eval examples/behaviours/listening.heldout.jsonl
    pv eval v1 examples/behaviours/listening.heldout.jsonl --json
    """
    if len(what) > 2:
        raise UsageError("eval takes a revision and a file of rows", hint="pv eval [REV] DATA.jsonl")
    rev, data = ("HEAD", what[0]) if len(what) == 1 else what
    repo = app.repo()
    revision, rows = repo.at(rev), app.rows(data, repo)
    with app.progress() as progress:
        found = revision.score(rows, dtype=dtype, threads=threads, progress=progress)
    if as_json:
        app.json({"commit": revision.commit, "build": found.build, **found.to_json()})
        return
    echo(f"{rev} ({short(revision.commit)})  {persona_line(revision.persona)}")
    echo(_drawn(found))
    if revision.persona.is_base:
        echo("no behaviour has a weight: this is the base, whose effect is 0 by definition")
    else:
        echo(VERDICTS[found.effect.verdict][1])
    for line in caveats(found.effect.n, found.overlap):
        echo(plain(line))


def _drawn(found: Score) -> str:
    cells = [
        [label, interval(i.mean, i.low, i.high), str(i.n)]
        for label, i in (
            ("margin of the base", found.base_margin),
            ("margin", found.margin),
            ("effect", found.effect),
            ("effect per token", found.effect_per_token),
        )
    ]
    return table([found.data, "nats, 95 % interval", "rows"], cells)
