"""What a command says that made a commit, or moved HEAD."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import change_lines, persona_line
from pv.cli.say import echo

if TYPE_CHECKING:
    from pv.registry.changes import Change
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.repo import Repo

__all__ = ["report", "report_head", "say_changes"]


def report(app: App, made: Committed, *, as_json: bool) -> None:
    """Say what a new commit did, and what the persona is now."""
    if as_json:
        app.json(made)
    else:
        app.done(f"{short(made.commit)} {made.said}")
        say_changes(app, made.changes)
        app.note(f"  {persona_line(made.persona)}")
        for note in made.notes:
            app.note(f"note: {note}")


def say_changes(app: App, changes: Iterable[Change]) -> None:
    """What differs in the persona, a line each."""
    if not app.quiet:
        for line in change_lines(changes):
            echo(line, err=True)


def report_head(app: App, repo: Repo, said: str, *, as_json: bool, **done: str) -> None:
    """Say what was done, and as JSON also where HEAD is now."""
    head = repo.head
    if as_json:
        app.json({**done, "branch": head.branch, "commit": head.commit})
    else:
        app.done(f"{said}; on branch {head.branch} at {short(head.commit)}")
        app.note(f"  {persona_line(repo.persona)}")
