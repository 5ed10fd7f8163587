"""pv combine"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import combine_options, json_option, message_option
from pv.cli.render import combine_words
from pv.cli.report import report
from pv.cli.say import echo
from pv.registry.combine import METHODS, Combine

__all__ = ["command"]


@click.command("combine", short_help="Show or set how behaviours are combined.")
@click.argument("method", type=click.Choice(tuple(METHODS)), required=False, metavar=f"[{'|'.join(METHODS)}]")
@combine_options
@message_option
@json_option
@pass_app
def command(app: App, rule: Combine | None, message: str | None, as_json: bool) -> None:
    """Set the merge method by which a build combines the persona's behaviours, from the next commit on.

    Options that are not given take their defaults; `pv config combine.density 0.3` changes one and leaves the
    others. Without a method, the rule in use is printed.

    \b
    pv combine
    pv combine add
    pv combine ties --density 0.3
    pv combine ties --preset mergekit
    """
    repo = app.repo()
    if rule is not None:
        report(app, repo.combine(rule, message=message), as_json=as_json)
        return
    revision = repo.at()
    if as_json:
        app.json({"commit": revision.commit, "combine": revision.persona.combine.to_json()})
    else:
        echo(combine_words(revision.persona.combine))
