"""What a gate of a steering term says: each condition, whether it holds, and what was measured beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pv.cli.app import App, short
from pv.cli.say import echo
from pv.registry.exit_codes import ExitCode

if TYPE_CHECKING:
    from pv.vecstore.repo.steer.gates import Passage

__all__ = ["say_passage"]

NEXT = {
    "tested": "another layer or coefficient may do: pv steer sweep {name} --data ROWS",
    "verified": "another layer, or more and cleaner pairs, may do: pv steer sweep {name} --data ROWS",
    "retired": "a higher weight of the behaviour may do, or more training: pv scale BEHAVIOUR 1.5",
}


def say_passage(app: App, found: Passage, done: str, *, as_json: bool) -> None:
    """`done` is what was done if it passed. Exits with 1 where the gate stopped the term."""
    from pv.cli.scores import damage_table, reply_lines  # numpy, which the list of commands does without

    if as_json:
        app.json(found)
    else:
        for one in found.conditions:
            mark = click.style("✓", fg="green") if one.holds else click.style("✗", fg="red")
            echo(f"{mark} {one.said}")
        for line in (*damage_table(found.score), *reply_lines(found.score.replies)):
            echo(line)
        for note in found.notes:
            app.note(f"note: {note}")
        if found.commit is not None:
            app.done(f"{short(found.commit)} {done}")
        else:
            app.note(f"{found.name} is not {found.gate}: nothing has changed")
            app.note(f"hint: {NEXT[found.gate].format(name=found.name)}")
    if not found.passed:
        click.get_current_context().exit(ExitCode.NO)
