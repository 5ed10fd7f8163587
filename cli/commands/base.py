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


@click.group("base", short_help="Show the base, or set where it is now.", invoke_without_command=True)
@json_option
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show the base that the vectors here belong to, and where it is; or set where it is now.

    \b
    pv base
    pv base move ../models/SmolLM2-135M-Instruct
    """
    if ctx.invoked_subcommand is None:
        app = ctx.find_object(App)
        assert app is not None
        _show(app, app.repo().at().base_state(), as_json=as_json)
    elif as_json:
        raise UsageError("--json stands at the end here", hint="pv base move DIR_OR_HUB_ID --json")


@command.command("move", short_help="Set where the base is now.")
@click.argument("to", metavar="DIR_OR_HUB_ID")
@threads_option
@json_option
@pass_app
def move(app: App, to: str, threads: int, as_json: bool) -> None:
    """Set where the base is now: every tensor there is read first, because only these very bytes are the base.

    It holds for every commit, and for this copy of the registry alone: nothing is committed.

    \b
    pv base move ../models/SmolLM2-135M-Instruct
    pv base move HuggingFaceTB/SmolLM2-135M-Instruct
    """
    with app.progress() as progress:
        state = app.repo().move_base(to, seen_from=app.path, threads=threads, progress=progress)
    _show(app, state, as_json=as_json, moved=True)


def _show(app: App, state: BaseState, *, as_json: bool, moved: bool = False) -> None:
    for note in state.notes:
        app.note(f"  {note}")
    if as_json:
        app.json(state)
    elif moved:
        app.done(f"base {state.words} is at {state.looked_at}")
    else:
        for line in _lines(state):
            echo(plain(line))


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
