"""pv base"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from pv.cli.app import App, pass_app
from pv.cli.options import json_option, threads_option
from pv.cli.say import echo, plain
from pv.registry.errors import UsageError

if TYPE_CHECKING:
    from pv.vecstore.repo.base import BaseState

__all__ = ["command"]


@click.command("base", short_help="Show the base, or set where it is now.")
@click.argument("verb", required=False, metavar="[move")
@click.argument("to", required=False, metavar="DIR_OR_HUB_ID]")
@threads_option
@json_option
@pass_app
def command(app: App, verb: str | None, to: str | None, threads: int, as_json: bool) -> None:
    """Show the base that the vectors here belong to, and where it is; or set where it is now.

    `move` reads every tensor at the new place first: only these very bytes are the base. It holds for every commit,
    and for this copy of the registry alone: nothing is committed.

    \b
    pv base
    pv base move ../models/SmolLM2-135M-Instruct
    pv base move HuggingFaceTB/SmolLM2-135M-Instruct
    """
    if verb not in (None, "move") or (verb and not to):
        raise UsageError("base takes no argument, or `move` and a place", hint="pv base move DIR_OR_HUB_ID")
    repo = app.repo()
    if to is None:
        state = repo.at().base_state()
    else:
        with app.progress() as progress:
            state = repo.move_base(to, seen_from=app.path, threads=threads, progress=progress)
    for note in state.notes:
        app.note(f"  {note}")
    if as_json:
        app.json(state)
    elif to is None:
        for line in _lines(state):
            echo(plain(line))
    else:
        app.done(f"base {state.words} is at {state.looked_at}")


def _lines(state: BaseState) -> Iterator[str]:
    yield f"base     {state.words}"
    yield f"id       {state.manifest.id}"
    yield f"origin   {state.origin}"
    if state.moved:
        yield f"moved    {state.looked_at}"
    yield f"copy     {'in the registry' if state.pinned else 'none (referenced only)'}"
    yield f"read     from {where(state)}" if state.found else f"missing  {where(state)}"
    yield f"licence  {state.licence or 'no licence file found'}"


def where(state: BaseState) -> str:
    match state.found:
        case "folder":
            return str(state.path)
        case "registry":
            return f"the copy in the registry; not found at {state.looked_at}"
        case "hub":
            return f"{state.looked_at}, or the Hub client's cache"
    return f"not found at {state.looked_at}: `pv base move DIR` says where it is now"
