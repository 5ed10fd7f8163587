"""pv combine"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.methods import combine_options, method_list, method_words
from pv.cli.options import json_option, message_option
from pv.cli.render import combine_words
from pv.cli.report import report
from pv.cli.say import echo
from pv.registry.combine import METHODS, Combine

__all__ = ["command"]


@click.command("combine", short_help="Show or set how behaviours are combined.")
@click.argument("method", type=click.Choice(tuple(METHODS)), required=False, metavar="[METHOD]")
@combine_options
@click.option("--list", "listed", is_flag=True, help="List the methods, or the switches of METHOD.")
@message_option
@json_option
@pass_app
def command(app: App, rule: Combine | None, listed: bool, message: str | None, as_json: bool) -> None:
    """Set the merge method by which a build combines the persona's behaviours, from the next commit on.

    Switches that are not given take their defaults; `pv config combine.density 0.3` changes one and leaves the
    others. Without a method, the rule in use is printed. The default, add, is the one to begin with.

    \b
    pv combine
    pv combine add
    pv combine ties --density 0.3
    pv combine ties --preset mergekit
    pv combine dare --set density=0.1 --set seed=7
    pv combine --list
    pv combine dare --list
    """
    if listed:
        methods = [METHODS[rule.method]] if rule else list(METHODS.values())
        if as_json:
            app.json({"methods": [method.to_json() for method in methods]})
        else:
            echo(method_words(methods[0]) if rule else method_list())
        return
    repo = app.repo()
    if rule is not None:
        report(app, repo.combine(rule, message=message), as_json=as_json)
        return
    revision = repo.at()
    if as_json:
        app.json({"commit": revision.commit, "combine": revision.persona.combine.to_json()})
    else:
        echo(combine_words(revision.persona.combine))
