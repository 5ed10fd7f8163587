"""pv compress"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import Number, json_option, message_option, model_threads_option
from pv.cli.render import interval, size, table
from pv.cli.say import echo, plain
from pv.registry.exit_codes import ExitCode
from pv.vecstore.publish.words import caveats, effect_name, share

if TYPE_CHECKING:
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.repo.compress import Compressed

__all__ = ["command"]

MUCH = 0.5  # a relative L2 error that calls for a measurement


@click.command("compress", short_help="Keep a behaviour in a smaller encoding.")
@click.argument("name", metavar="NAME")
@click.option(
    "--to",
    multiple=True,
    metavar="ENCODING",
    help="float, float:fp32, int8, ternary, lowrank:64, sparse:0.1; with --keep it can be repeated, and by default "
    "a ladder is tried.",
)
@click.option("--keep", type=Number(0, 1, above=True), help="Share of the effect that must remain.")
@click.option("--data", metavar="FILE", help="Held-out rows to measure the effect on.")
@click.option("--force", is_flag=True, help="Commit even if it is larger.")
@message_option
@model_threads_option
@json_option
@pass_app
def command(
    app: App,
    name: str,
    to: tuple[str, ...],
    keep: float | None,
    data: str | None,
    force: bool,
    message: str | None,
    threads: int,
    as_json: bool,
) -> None:
    """Re-encode a behaviour's vectors to take less space, approximately, and commit the behaviour with them.

    The results are new vectors, with ids of their own and an error measured against the old ones. With held-out
    rows the effect is measured too: of the behaviour alone at weight 1, with its module factors. --keep 0.95
    tries a ladder of encodings, then ranks or shares between two of its rungs, and commits the smallest for
    which the lower end of the 95 % interval of the kept share is at least 0.95. If there is none, nothing is
    committed, and the exit code is 1.

    \b
    pv compress listening --to int8
    pv compress listening --to lowrank:16 --data listening.heldout.jsonl
    pv compress listening --keep 0.95 --data listening.heldout.jsonl
    """
    repo = app.repo()
    rows = None if data is None else app.rows(data, repo)
    with app.progress() as progress:
        found = repo.compress(
            name, *to, keep=keep, data=rows, force=force, message=message, threads=threads, progress=progress
        )
    if as_json:
        app.json(found)
    else:
        if found.trials:
            echo(_drawn(found))
            for line in caveats(found.trials[0].effect.n, found.overlap):
                echo(plain(line))
        _say(app, found)
    if found.commit is None:
        raise click.exceptions.Exit(ExitCode.NO)


def _drawn(found: Compressed) -> str:
    """The search as a table, from the largest to the smallest."""
    known = {trial.candidate.spec.text: trial for trial in found.trials}
    now = f"{'+'.join(found.encodings)} (now)"
    cells = [[now, size(found.stored_bytes), "-", _nats(found.effect), "-", ""]]
    for candidate in found.candidates:
        text = candidate.spec.text
        trial = known.get(text)
        row = [text, size(candidate.stored_bytes), f"{candidate.error.relative_l2:.3f}"]
        if trial is None:
            cells.append([*row, "-", "-", "not smaller"])
            continue
        asked = found.share
        verdict = "" if asked is None else "keeps it" if trial.keeps(asked) else "loses more"
        cells.append([*row, _nats(trial.effect), _share(trial.kept), verdict])
    header = ["encoding", "stored", "relative L2 error", "effect, nats, 95 %", "kept, 95 %", ""]
    title = f"{effect_name(found.overlap)} on {found.data}, n={found.trials[0].effect.n}"
    return table(header, cells, title=plain(title))


def _nats(found: Interval | None) -> str:
    return "-" if found is None else interval(found.mean, found.low, found.high)


def _share(kept: Interval | None) -> str:
    return "-" if kept is None else share(kept.to_json())


def _say(app: App, found: Compressed) -> None:
    name, chosen = found.name, found.chosen
    if chosen is not None:
        app.done(
            f"{short(found.commit)} {name} is {chosen.spec.text}: {size(chosen.stored_bytes)}, was "
            f"{size(found.stored_bytes)}; relative L2 error of the vector {chosen.error.relative_l2:.3f}, "
            f"on branch {found.branch}"
        )
        if not found.trials and chosen.error.relative_l2 >= MUCH:
            again = f"pv compress {name} --to {chosen.spec.text} --data ROWS.jsonl"
            app.note(f"  what is left of its effect was not measured: `pv undo`, then `{again}`")
    elif found.effect is not None and found.effect.low <= 0:
        app.note(f"the effect of {name} on these rows is not clearly above 0: there is nothing to keep")
    else:
        app.note(f"no smaller encoding keeps {found.share:g} of the effect of {name}: nothing was committed")
