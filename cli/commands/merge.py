"""pv merge"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.methods import combine_options, method_option
from pv.cli.options import (
    json_option,
    message_option,
    read_takes,
    take_option,
    threads_choice,
)
from pv.cli.report import report
from pv.registry.combine import Combine

__all__ = ["command"]


@click.command("merge", short_help="Merge another branch into this one.")
@click.argument("branch")
@take_option
@method_option
@combine_options
@message_option
@click.option(
    "-n", "--dry-run", is_flag=True, help="Say what would be merged, and how the behaviours interfere."
)
@threads_choice("Number of threads for --dry-run; no result depends on it.")
@json_option
@pass_app
def command(
    app: App,
    branch: str,
    takes: tuple[str, ...],
    rule: Combine | None,
    message: str | None,
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Merge another branch into this one.

    A three-way merge, behaviour by behaviour, and setting by setting. What both sides changed differently is a
    conflict: nothing is merged, both sides are listed, the exit code is 1, and --take settles it without a prompt.
    `ours` is this branch, `theirs` the other one.

    --dry-run changes nothing and builds nothing: it reads the vectors, and shows how alike the behaviours are, where
    they act against one another, how far all of them together move the weights, and what follows from that.
    docs/interference.md explains it.

    \b
    pv merge terse
    pv merge terse --dry-run
    pv merge terse --take concise=theirs
    pv merge terse --take 'concise=theirs*0.5'
    pv merge terse --method ties --density 0.3
    """
    taken = read_takes(takes)
    if dry_run:
        with app.progress() as progress:
            plan = app.repo().plan_merge(branch, take=taken, rule=rule, threads=threads, progress=progress)
        from pv.cli.interference import report_merge_plan

        report_merge_plan(app, plan, as_json=as_json)
        return
    made = app.repo().merge(branch, take=taken, rule=rule, message=message)
    report(app, made, as_json=as_json)
