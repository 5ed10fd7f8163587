"""What the commands that change a persona share: one edit, one commit, one line of answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, short
from pv.cli.render import persona_line
from pv.registry.errors import UsageError
from pv.registry.persona import Persona

if TYPE_CHECKING:
    from pv.registry.history.threeway import Take
    from pv.registry.registry import Registry

__all__ = ["change", "parse_takes", "report", "take_option"]

take_option = click.option(
    "--take", "takes", multiple=True, metavar="NAME=ours|theirs|W", help="Settle a conflict beforehand."
)


def change(
    app: App,
    edit: Callable[[Persona], Persona],
    message: str,
    *,
    as_json: bool,
    also_from: Sequence[str] = (),
) -> None:
    """Apply `edit` to the persona of the current branch and commit it."""
    registry = app.registry()
    commit = registry.change(app.command_line, message, edit, also_from=also_from)
    report(app, registry, commit, message, as_json=as_json)


def report(app: App, registry: Registry, commit: str, said: str, *, as_json: bool, **more: str) -> None:
    """Say what a new commit did, and what the persona is now."""
    persona = registry.persona(commit)
    if as_json:
        app.json({"commit": commit, **more, "persona_id": persona.id, "persona": persona.to_json()})
    else:
        app.done(f"{short(commit)} {said}")
        app.note(f"  {persona_line(persona)}")


def parse_takes(takes: Sequence[str]) -> dict[str, Take]:
    """`NAME=ours`, `NAME=theirs`, `NAME=0.5`. Raises UsageError."""
    return dict(_take(text) for text in takes)


def _take(text: str) -> tuple[str, Take]:
    name, equals, side = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--take {text!r} is not NAME=ours, NAME=theirs or NAME=WEIGHT")
    if side == "ours":
        return name, "ours"
    if side == "theirs":
        return name, "theirs"
    try:
        return name, float(side)
    except ValueError:
        raise UsageError(f"--take {text!r}: {side!r} is not ours, theirs or a number") from None
