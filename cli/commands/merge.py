"""pv merge"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.methods import combine_options, method_option
from pv.cli.options import json_option, message_option, read_takes, take_option
from pv.cli.report import report
from pv.registry.combine import Combine

__all__ = ["command"]


@click.command("merge", short_help="Merge another branch into this one.")
@click.argument("branch")
@take_option
@method_option
@combine_options
@message_option
@json_option
@pass_app
def command(
    app: App, branch: str, takes: tuple[str, ...], rule: Combine | None, message: str | None, as_json: bool
) -> None:
    """Merge another branch into this one.

    A three-way merge, behaviour by behaviour, and setting by setting. What both sides changed differently is a
    conflict: nothing is merged, both sides are listed, the exit code is 1, and --take settles it without a prompt.
    `ours` is this branch, `theirs` the other one.

    \b
    pv merge terse
    pv merge terse --take concise=theirs
    pv merge terse --take 'concise=theirs*0.5'
    pv merge terse --method ties --density 0.3
    """
    made = app.repo().merge(branch, take=read_takes(takes), rule=rule, message=message)
    report(app, made, as_json=as_json)
