"""What a command says that made a commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv.cli.app import App, short
from pv.cli.render import persona_line

if TYPE_CHECKING:
    from pv.vecstore.repo.edit import Committed

__all__ = ["report"]


def report(app: App, made: Committed, *, as_json: bool) -> None:
    """Say what a new commit did, and what the persona is now."""
    if as_json:
        app.json(made)
    else:
        app.done(f"{short(made.commit)} {made.said}")
        app.note(f"  {persona_line(made.persona)}")
