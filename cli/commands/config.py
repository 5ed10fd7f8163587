"""pv config"""

from __future__ import annotations

import click

from pv.cli.app import App, pass_app
from pv.cli.options import TakesNumbers, json_option, message_option
from pv.cli.report import report
from pv.cli.say import echo

__all__ = ["command"]


@click.command("config", cls=TakesNumbers, short_help="Show or change a persona's settings.")
@click.argument("key", required=False)
@click.argument("value", required=False)
@message_option
@json_option
@pass_app
def command(app: App, key: str | None, value: str | None, message: str | None, as_json: bool) -> None:
    """Show how the persona's behaviours are combined and its builds written, or change that in a commit.

    Settings are the persona's, and so the branch's: they are committed, merged and reverted like its behaviours.
    `pv config` lists them, `pv config KEY` prints one.

    \b
    pv config
    pv config output.dtype
    pv config output.dtype fp32
    pv config combine.method ties
    pv config combine.density 0.3
    """
    repo = app.repo()
    if key is not None and value is not None:
        report(app, repo.config(key, value, message=message), as_json=as_json)
        return
    revision = repo.at()
    found = revision.settings() if key is None else {key: revision.setting(key)}
    if as_json:
        app.json({"commit": revision.commit, "settings": found})
    elif key is not None:
        echo(str(found[key]))
    else:
        for name, one in found.items():
            echo(f"{name:<16} {one}")
