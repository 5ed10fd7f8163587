"""pv combine"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import combine_options, json_option, message_option
from pv.cli.report import report
from pv.registry.combine import METHODS, Combine

__all__ = ["command"]


@click.command("combine", short_help="Set how behaviours are combined.")
@click.argument("method", type=click.Choice(tuple(METHODS)), metavar=f"[{'|'.join(METHODS)}]")
@combine_options
@message_option
@json_option
@pass_app
def command(app: App, rule: Combine, message: str | None, as_json: bool) -> None:
    """Set the merge method by which a build combines the persona's behaviours, from the next commit on.

    Options that are not given take their defaults. `pv show` says which rule a persona has.

    \b
    pv combine add
    pv combine ties --density 0.3
    pv combine ties --preset mergekit
    """
    report(app, app.repo().combine(rule, message=message), as_json=as_json)
