"""What a command says that made a commit, or moved HEAD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import persona_line

if TYPE_CHECKING:
    from pv.vecstore.repo.edit import Committed
    from pv.vecstore.repo.repo import Repo

__all__ = ["report", "report_head"]


def report(app: App, made: Committed, *, as_json: bool) -> None:
    """Say what a new commit did, and what the persona is now."""
    if as_json:
        app.json(made)
    else:
        app.done(f"{short(made.commit)} {made.said}")
        app.note(f"  {persona_line(made.persona)}")


def report_head(app: App, repo: Repo, said: str, *, as_json: bool, **done: str) -> None:
    """Say what was done, and as JSON also where HEAD is now."""
    head = repo.head
    if as_json:
        app.json({**done, "branch": head.branch, "commit": head.commit})
    else:
        app.done(f"{said}; on branch {head.branch} at {short(head.commit)}")
        app.note(f"  {persona_line(repo.persona)}")
