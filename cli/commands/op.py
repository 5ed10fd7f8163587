"""pv op"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.operations import move_lines, operation_line
from pv.cli.options import Whole, json_option
from pv.cli.terminal import cut

if TYPE_CHECKING:
    from pv.registry.history.operations import Operation

__all__ = ["command"]


@click.group("op", invoke_without_command=True, short_help="Show the operation log.")
@click.pass_context
def command(ctx: click.Context) -> None:
    """Show the operation log: every change of branches, tags and HEAD, by number. Alone, it is `pv op log`.

    \b
    pv op log
    pv op show 12
    pv undo --to 12
    """
    if ctx.invoked_subcommand is None:
        ctx.invoke(log)


@command.command("log", short_help="List the operations.")
@click.option("-n", "limit", type=Whole(1), metavar="N", help="Show at most N.")
@json_option
@pass_app
def log(app: App, limit: int | None, as_json: bool) -> None:
    """List the operations, newest first: number, time, author, command, and what each moved.

    Operations that `pv undo` took back are marked; `pv gc` forgets old ones.

    \b
    pv op log
    pv op log -n 5
    """
    found = app.repo().operations(limit)
    if as_json:
        app.json({"operations": [one.summary() for one in found]})
        return
    lines = []
    for one in found:
        lines += [cut(_styled(one)), *(f"      {line}" for line in move_lines(one.refs, one.head))]
    app.page("\n".join(lines))


@command.command("show", short_help="Show one operation.")
@click.argument("number", type=Whole(1))
@json_option
@pass_app
def show(app: App, number: int, as_json: bool) -> None:
    """Show an operation: who did what and when, and what it moved from where to where.

    \b
    pv op show 12
    """
    one = app.repo().operation(number)
    if as_json:
        app.json(one.summary())
        return
    moved = [f"  {line}" for line in move_lines(one.refs, one.head)]
    app.page("\n".join([_styled(one), *(moved or ["  moved nothing"])]))


def _styled(one: Operation) -> str:
    line = operation_line(one)
    if one.undone_by is None:
        return line
    return click.style(f"{line}  (taken back by {one.undone_by})", dim=True)
