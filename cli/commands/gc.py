"""pv gc"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app, short
from pv.cli.options import Number, json_option
from pv.cli.render import counted, size
from pv.cli.say import echo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pv.registry.check.gc import Garbage, Plan

__all__ = ["command"]

DAY = 86400.0


@click.command("gc", short_help="Delete what no branch, tag or undo needs.")
@click.option("-n", "--dry-run", is_flag=True, help="Show what would be deleted, and delete nothing.")
@click.option(
    "--grace",
    type=Number(0),
    default=14.0,
    show_default=True,
    metavar="DAYS",
    help="Quarantine packs that have been unneeded for this long; delete them after as long again.",
)
@click.option(
    "--expire",
    type=Number(0),
    default=30.0,
    show_default=True,
    metavar="DAYS",
    help="Forget operations older than this: `pv undo` can no longer take them back.",
)
@json_option
@pass_app
def command(app: App, dry_run: bool, grace: float, expire: float, as_json: bool) -> None:
    """Delete vectors and rows that no branch, tag or undoable operation refers to.

    What `pv undo` can still bring back is kept: an operation can be undone until it is forgotten, which is
    --expire days after it was done. Packs go to the quarantine first, and are deleted by a later gc. Nothing is
    deleted if any commit is damaged, nor anything that a running process uses. Builds that `chat` and `eval` kept
    in .pv/cache are deleted too, and made again when they are needed; so are trainings that were stopped, and not
    resumed for --grace days.

    \b
    pv gc --dry-run
    pv gc
    pv gc --grace 0 --expire 0    at once; a second run empties the quarantine
    """
    with app.progress() as progress:
        done = app.repo().gc(grace_days=grace, expire_days=expire, dry_run=dry_run, progress=progress)
    if as_json:
        app.json(done)
    else:
        _show(app, done.plan, dry_run)


def _show(app: App, plan: Plan, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if plan.expire:
        first, last = min(plan.expire), max(plan.expire)
        which = f"operation {first}" if first == last else f"operations {first} to {last}"
        echo(
            f"{which} {would}forgotten: `pv undo` can no longer take {'it' if first == last else 'them'} back"
        )
    for pack_id in plan.restore:
        echo(f"pack {short(pack_id)} {would}brought back from the quarantine: a commit needs it")
    _list(plan.purge, f"{would}deleted")
    _list(plan.quarantine, f"{would}put into the quarantine")
    gone = len(plan.commits) + len(plan.objects)
    if gone:
        echo(f"{counted(gone, 'git object')} {would}deleted")
    if plan.builds:
        taken = size(sum(build.nbytes for build in plan.builds))
        echo(f"{counted(len(plan.builds), 'build')} in the cache, {taken}, {would}deleted")
    if plan.trainings:
        taken = size(sum(training.nbytes for training in plan.trainings))
        echo(
            f"{counted(len(plan.trainings), 'training')} that was stopped and not resumed, {taken}, {would}deleted"
        )
    for name in plan.leftovers:
        echo(f"{name} {would}deleted: left by a killed process")
    if plan.young:
        app.note(f"  {_unneeded(plan.young)} younger than the grace period")
    if plan.in_use:
        app.note(f"  {_unneeded(plan.in_use)} in use by another process")
    if plan.empty:
        app.note("nothing to delete")
    elif dry_run:
        app.note(f"{size(plan.freed)} would be freed")
    else:
        app.done(f"{size(plan.freed)} freed")


def _unneeded(packs: int) -> str:
    return f"{counted(packs, 'pack')} that nothing needs {'is' if packs == 1 else 'are'}"


def _list(garbage: Sequence[Garbage], what: str) -> None:
    for one in garbage:
        days = one.age_s / DAY
        echo(f"pack {short(one.name)} {size(one.nbytes)}, unneeded for {counted(round(days), 'day')}, {what}")
