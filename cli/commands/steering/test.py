"""pv steer test"""

from __future__ import annotations

from typing import Any

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, message_option, model_threads_option
from pv.cli.passage import say_passage

__all__ = ["command"]


@click.command("test", short_help="Test a steering term on held-out rows.")
@click.argument("term")
@click.argument("data", metavar="ROWS")
@message_option
@model_threads_option
@json_option
@pass_app
def command(app: App, /, term: str, data: str, as_json: bool, **given: Any) -> None:
    """Test a steering term, alone on the base: its effect on rows that it was not extracted from, and its damage.

    It passes if the effect is above 0 with its whole interval. Then the evidence is committed with the term; it
    is dropped again when the term changes. Exit code 1 if it does not pass, and nothing changes.

    \b
    pv steer test formal formal.heldout.jsonl
    """
    repo = app.repo()
    rows = app.rows(data, repo)
    with app.progress() as progress:
        found = repo.steer.test(term, rows, progress=progress, **given)
    say_passage(app, found, f"{term} is tested", as_json=as_json)
