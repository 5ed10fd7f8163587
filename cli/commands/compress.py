"""pv compress"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import Number, json_option, message_option, threads_option
from pv.cli.render import interval, size, table
from pv.cli.say import echo
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.evaluate.statistics import Interval
    from pv.vecstore.repo.compress import Compressed

__all__ = ["command"]


@click.command("compress", short_help="Keep a behaviour in a smaller encoding.")
@click.argument("name", metavar="NAME")
@click.option(
    "--to",
    multiple=True,
    metavar="ENCODING",
    help="float, float:fp32, int8, ternary, lowrank:64, sparse:0.1; with --keep several, or none for a ladder of them.",
)
@click.option("--keep", type=Number(0, 1, above=True), help="The share of the effect that must stay.")
@click.option("--data", metavar="FILE", help="Held-out rows to measure the effect on.")
@click.option("--force", is_flag=True, help="Also if it takes more room than now.")
@message_option
@threads_option
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
    """Re-encode a behaviour's vectors, smaller and approximate, and commit the behaviour with them.

    What comes out are other vectors, with ids of their own and an error measured against those before. With
    held-out rows the effect is measured too: --keep 0.95 tries a ladder of encodings, then ranks or shares
    between two of its rungs, and commits the smallest whose effect is, with its whole 95 % interval, at least
    95 % of what it was. Nothing is committed, and the exit code is 1, if none is.

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
        share = found.share
        verdict = "" if share is None else "keeps it" if trial.keeps(share) else "loses more"
        cells.append([*row, _nats(trial.effect), _share(trial.kept), verdict])
    header = ["encoding", "stored", "error of tau", "effect, nats", "kept, 95 % interval", ""]
    return table(header, cells)


def _nats(found: Interval | None) -> str:
    return "-" if found is None else interval(found.mean, found.low, found.high)


def _share(kept: Interval | None) -> str:
    return "-" if kept is None else f"{kept.mean:.3f} [{kept.low:.3f}, {kept.high:.3f}]"


def _say(app: App, found: Compressed) -> None:
    name, chosen = found.name, found.chosen
    if chosen is not None:
        app.done(
            f"{short(found.commit)} {name} is {chosen.spec.text}: {size(chosen.stored_bytes)}, was "
            f"{size(found.stored_bytes)}; error of tau {chosen.error.relative_l2:.3f}, on branch {found.branch}"
        )
    elif found.effect is not None and found.effect.low <= 0:
        app.note(f"{name} has no effect on these rows that is surely above 0: there is nothing to keep")
    else:
        app.note(f"no smaller encoding keeps {found.share:g} of the effect of {name}: nothing was committed")
